// Bokeh waits five seconds for MathJax on pages that have no mathematics and so never load it, unless it is defined.
window.MathJax = window.MathJax || {};
