// The face on the first page: what its slider, a finger or an arrow key chooses is shown, and said.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".fb-turn")) {
    const values = box.dataset.values.split(",").map(Number), most = Math.max(...values);
    const [face, slider, said] = ["img", "input", "p"].map(name => box.querySelector(name));
    const [line, dot] = ["line", "circle"].map(name => box.querySelector(name));
    const show = () => {
      const angle = Number(slider.value), at = Math.round((angle + 180) / 360 * values.length) % values.length;
      face.style.transform = `rotate(${-angle}deg)`;
      for (const name of ["x1", "x2"]) line.setAttribute(name, 180 + angle);
      dot.setAttribute("cx", 180 + angle);
      dot.setAttribute("cy", 150 - 140 * values[at] / most);
      const error = (180 / Math.PI / values[at]).toFixed(1);
      said.textContent = `At ${angle}°: √F = ${values[at].toPrecision(3)} rad⁻¹, so that no unbiased report errs by less than ${error}°.`;
    };
    slider.addEventListener("input", show);
    show();
  }
});
