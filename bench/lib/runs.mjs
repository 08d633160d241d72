/** Looking things up in the list of runs. */

/** The metrics of one contender in one case, by round; failed and left-out runs are not in it. */
export function metricsOf(results, scenario, variant, contender) {
  const same = (run) => run.scenario === scenario && run.variant === variant && run.contender === contender;
  return new Map(results.runs.filter((run) => same(run) && run.metrics).map((run) => [run.round, run.metrics]));
}

/** `of(a) / of(b)` in every round that has both. */
export function ratios(a, b, of = (metrics) => metrics.rate) {
  const rounds = [...a.keys()].filter((round) => b.has(round));
  return rounds.map((round) => of(a.get(round)) / of(b.get(round)));
}

/** The cases (scenario and variant) that ran, in order. */
export function casesOf(results) {
  const cases = new Map();
  for (const { scenario, variant, label } of results.runs)
    cases.set(`${scenario} ${variant}`, { scenario, variant, label });
  return [...cases.values()];
}
