/** The results as a page of Markdown. */
import { CONTENDERS, peersIn, takesPart } from "./contenders.mjs";
import { median, short, spread } from "./numbers.mjs";
import { casesOf, metricsOf, ratios } from "./runs.mjs";
import { SCENARIOS } from "../scenarios/index.mjs";

const table = (head, rows) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ").replaceAll("\n", " ")} |`).join("\n");

const headlineOf = (scenario) => scenario.headline ?? ((metrics) => metrics.rate);

/** The round whose headline is the median: a series is shown from one run, not averaged. */
function typical(scenario, rounds) {
  const headline = headlineOf(scenario);
  const middle = median(rounds.map(headline), scenario.lowerIsBetter);
  return rounds.find((metrics) => headline(metrics) === middle);
}

function cell(scenario, column, rounds) {
  if (column.series) return (column.series(typical(scenario, rounds)) ?? []).map(short).join(" ") || "–";
  return spread(rounds.map(column.value), scenario.lowerIsBetter);
}

/** A scenario whose runs measure several things alike has a row for each of them. */
function partRows(results, scenario, { variant, label }) {
  const rounds = [...metricsOf(results, scenario.name, variant, "millrace").values()].map(scenario.parts);
  return Object.keys(rounds[0] ?? {}).map((part) => [
    label,
    part,
    ...scenario.columns.map((column) =>
      cell(
        scenario,
        column,
        rounds.map((parts) => parts[part]),
      ),
    ),
  ]);
}

const taking = (results, scenario) => results.options.contenders.filter((name) => takesPart(scenario, name));

function scenarioRows(results, scenario, { variant, label }) {
  return taking(results, scenario).map((contender) => {
    const rounds = [...metricsOf(results, scenario.name, variant, contender).values()];
    const runs = results.runs.filter(
      (run) => run.scenario === scenario.name && run.variant === variant && run.contender === contender,
    );
    const skipped = runs.find((run) => run.skipped);
    const bad = runs.filter((run) => run.error).length;
    const name = `${CONTENDERS[contender].ceiling ? `*${contender}*` : contender}${bad > 0 ? ` (${bad} of ${runs.length} failed)` : ""}`;
    const cells = scenario.columns.map((column, index) => {
      if (rounds.length > 0) return cell(scenario, column, rounds);
      return index === 0 ? (skipped ? `left out: ${skipped.skipped}` : "**failed**") : "–";
    });
    return [label, name, ...cells];
  });
}

function scenarioSection(results, name) {
  const scenario = SCENARIOS[name];
  const cases = casesOf(results).filter((one) => one.scenario === name);
  const rows = cases.flatMap((one) => (scenario.parts ? partRows : scenarioRows)(results, scenario, one));
  const details = !scenario.details
    ? []
    : cases.flatMap(({ variant, label }) =>
        taking(results, scenario).flatMap((contender) => {
          const rounds = [...metricsOf(results, name, variant, contender).values()];
          const who = scenario.own ? label : contender;
          return rounds.length > 0 ? [`- ${who}: ${scenario.details(typical(scenario, rounds))}`] : [];
        }),
      );
  const head = [
    "",
    scenario.parts ? scenario.partName : "contender",
    ...scenario.columns.map((column) => column.title),
  ];
  const parts = [table(head, rows), details.join("\n"), scenario.calls ? callTable(results, scenario, cases) : ""];
  return [`## ${scenario.title}`, ...parts].filter(Boolean).join("\n\n");
}

/** What single calls took in each case, and how much longer in the last case than in the first. */
function callTable(results, scenario, cases) {
  const measured = cases
    .map(({ variant, label }) => ({
      label,
      rounds: [...metricsOf(results, scenario.name, variant, "millrace").values()].map(scenario.calls),
    }))
    .filter(({ rounds }) => rounds.length > 0);
  if (measured.length === 0) return "";
  const middle = ({ rounds }, call, at) =>
    median(
      rounds.map((calls) => calls[call][at]),
      true,
    );
  const rows = Object.keys(measured[0].rounds[0]).map((call) => [
    call,
    ...measured.map((one) => `${short(middle(one, call, "p50"))} / ${short(middle(one, call, "p99"))}`),
    `${short(middle(measured.at(-1), call, "p50") / middle(measured[0], call, "p50"))}×`,
  ]);
  return table(["one call, ms, p50 / p99", ...measured.map(({ label }) => label), "last : first, p50"], rows);
}

/** How many times better than each peer, by case; for what should be small the ratio is turned round. */
function ratioSection(results) {
  const shared = casesOf(results).filter(({ scenario }) => !SCENARIOS[scenario].own);
  if (shared.length === 0) return "";
  const peers = peersIn(shared.map(({ scenario }) => SCENARIOS[scenario]));
  const rows = shared.map(({ scenario: name, variant, label }) => {
    const scenario = SCENARIOS[name];
    const ours = metricsOf(results, name, variant, "millrace");
    const cells = peers.map((peer) => {
      const theirs = metricsOf(results, name, variant, peer);
      const found = scenario.lowerIsBetter
        ? ratios(theirs, ours, headlineOf(scenario))
        : ratios(ours, theirs, headlineOf(scenario));
      return found.length > 0 ? `${spread(found)}×` : "–";
    });
    return [`${name}, ${label}`, ...cells];
  });
  return [
    "## Millrace against each peer",
    "Ratio of each round, then the median of the ratios. Above 1: Millrace is better.",
    table(["", ...peers], rows),
  ].join("\n\n");
}

function machineSection({ machine, settings, options, minutes, startedAt }) {
  const set = (values) =>
    Object.entries(values ?? {})
      .filter(([name]) => name !== "own")
      .map(([name, value]) => `${name} ${value || '""'}`)
      .join(", ");
  const rows = [
    [
      "when",
      `${startedAt.slice(0, 16).replace("T", " ")} UTC, ${minutes} min, ${options.rounds} round${options.rounds > 1 ? "s" : ""}`,
    ],
    ["machine", `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB`],
    ["system", machine.system],
    ["storage", `${machine.filesystem}, fdatasync of 8 kB ${machine.fdatasyncMicros} µs (median)`],
    [
      "versions",
      Object.entries(machine.versions)
        .map(([name, version]) => `${name} ${version}`)
        .join("; "),
    ],
    ["PostgreSQL", set(machine.postgres)],
    ["Redis", set(machine.redis)],
    ...Object.entries(settings).map(([name, value]) => [
      `${name} settings`,
      `\`${JSON.stringify(value)}\`, history ${CONTENDERS[name].history}`,
    ]),
  ];
  return ["## Measured on", table(["", ""], rows)].join("\n\n");
}

function failureSection(results) {
  const failed = results.runs.filter((run) => run.error);
  if (failed.length === 0) return "";
  const line = (run) =>
    `- round ${run.round}, ${run.scenario} ${run.label}, ${run.contender}: ${run.error.split("\n")[0]}`;
  return ["## Failed runs", failed.map(line).join("\n")].join("\n\n");
}

/** How quiet the machine was: without this no figure can be judged. */
function disturbance(results) {
  const others = results.runs.map((run) => run.metrics?.cpu?.others).filter((cores) => typeof cores === "number");
  if (others.length === 0) return "";
  const disturbed = others.filter((cores) => cores > 0.1).length;
  const most = short(Math.max(...others));
  return (
    `Others used ${short(median(others))} cores meanwhile (median of the runs; at most ${most}); ` +
    `${disturbed} of ${others.length} runs were disturbed by more than 0.1 core.`
  );
}

export function render(results) {
  const verdicts = results.verdicts.map(({ target, measured, outcome }) => [
    target,
    measured,
    outcome === "met" ? "met" : `**${outcome}**`,
  ]);
  const names = results.options.scenarios.filter((name) => results.runs.some((run) => run.scenario === name));
  return (
    [
      `# Benchmark of ${results.startedAt.slice(0, 10)}`,
      results.options.quick
        ? "**A quick run with small numbers. It shows that the harness works; do not quote it.**"
        : "",
      "Median (min–max) of the rounds. How it is measured and how to read it: [bench/README.md](../README.md).",
      disturbance(results),
      "## Targets",
      table(["target", "measured", ""], verdicts),
      ratioSection(results),
      ...names.map((name) => scenarioSection(results, name)),
      failureSection(results),
      machineSection(results),
    ]
      .filter(Boolean)
      .join("\n\n") + "\n"
  );
}
