// What search puts first: a name that is meant exactly, then pages of tasks, then all else that has the words.
// The numbers are Sphinx's own, but for `score`.
var Scorer = {
  score: ([page, title, anchor, description, score]) =>
    /^(how\/|which$|index$)/.test(page) ? score + 10 : score,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
