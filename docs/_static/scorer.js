// What search puts first: a name that is meant exactly, then pages of tasks, and of pages that score alike those
// whose titles have more of the words. The numbers are Sphinx's own, but for `score`.
var sought = (new URLSearchParams(window.location.search).get("q") || "").toLowerCase().split(/\s+/);
var Scorer = {
  score: ([page, title, anchor, description, score]) =>
    score +
    (/^(how\/|which$|index$)/.test(page) ? 10 : 0) +
    sought.filter((word) => word && title.toLowerCase().includes(word)).length,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
