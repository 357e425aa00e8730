// The face on the first page: what its slider, its buttons, a finger or an arrow key chooses is shown, and said.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".fb-turn")) {
    const all = box.dataset.values.split(",").map(Number), most = Math.max(...all), names = JSON.parse(box.dataset.names);
    const [face, slider, said, curve, line, dot] =
      ["img", "input", "p", "polyline", "line", "circle"].map(name => box.querySelector(name));
    const chosen = names.map(() => 0), count = all.length / names.reduce((n, own) => n * own.length, 1);
    const height = value => 150 - 140 * value / most;
    const show = () => {
      const start = count * names.reduce((place, own, k) => place * own.length + chosen[k], 0);
      const values = all.slice(start, start + count), angle = Number(slider.value);
      const at = Math.round((angle + 180) / 360 * count) % count;
      curve.setAttribute("points", values.map((value, k) => `${360 * k / count},${height(value).toFixed(1)}`).join(" "));
      face.style.transform = `rotate(${-angle}deg)`;
      for (const name of ["x1", "x2"]) line.setAttribute(name, 180 + angle);
      dot.setAttribute("cx", 180 + angle);
      dot.setAttribute("cy", height(values[at]));
      const error = (180 / Math.PI / values[at]).toFixed(1), who = names.map((own, k) => own[chosen[k]]).join(", ");
      said.textContent = `${who}. At ${angle}°: √F = ${values[at].toPrecision(3)} rad⁻¹, so that no unbiased report errs by less than ${error}°.`;
    };
    slider.addEventListener("input", show);
    box.querySelectorAll("button").forEach((button, k) => button.addEventListener("click", () => {
      chosen[k] = (chosen[k] + 1) % names[k].length;
      show();
    }));
    show();
  }
});
