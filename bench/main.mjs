/** The benchmark itself: every scenario, every contender, round after round; see README.md. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { within } from "./lib/clock.mjs";
import { CONTENDERS, takesPart } from "./lib/contenders.mjs";
import { describeMachine, nameMachine } from "./lib/machine.mjs";
import { short } from "./lib/numbers.mjs";
import { HELP, readOptions } from "./lib/options.mjs";
import { render } from "./lib/report.mjs";
import { killChildren } from "./lib/rpc.mjs";
import { judge } from "./lib/targets.mjs";
import { SCENARIOS } from "./scenarios/index.mjs";
import { dropDatabases, startServers } from "./servers.mjs";

const RUN_LIMIT_MS = 20 * 60_000;
const WAIT_LIMIT_MS = 180_000;

let options;
try {
  options = readOptions(process.argv.slice(2));
} catch (error) {
  console.error(`bench: ${error.message}\n\n${HELP}`);
  process.exit(2);
}
if (options.help) {
  console.log(HELP);
  process.exit(0);
}

const startedAt = new Date();
const servers = await startServers();
let ending = false;
async function end(code) {
  if (ending) return;
  ending = true;
  await killChildren();
  await dropDatabases(servers);
  await servers.stop();
  process.exit(code);
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void end(1));
process.on("uncaughtException", (error) => {
  console.error(error);
  void end(1);
});

const env = { servers, limitMs: WAIT_LIMIT_MS, settings: {} };
const machine = await describeMachine(servers);
const { long, quick, rounds, scenarios, contenders } = options;
const results = {
  startedAt: startedAt.toISOString(),
  minutes: 0,
  options: { long, quick, rounds, scenarios, contenders },
  machine,
  settings: env.settings,
  runs: [],
};
const out =
  options.out ?? join(import.meta.dirname, "results", options.quick ? "quick" : nameMachine(startedAt, machine));

/** Written after every scenario, so that an interrupted run has not been for nothing. */
function write() {
  results.minutes = Math.round((Date.now() - startedAt.getTime()) / 6000) / 10;
  results.verdicts = judge(results);
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(`${out}.json`, `${JSON.stringify(results, null, 1)}\n`);
  writeFileSync(`${out}.md`, render(results));
}

/** Results are published: where the files lay on this machine is nobody's business. */
const withoutPaths = (text) => text.replaceAll(join(import.meta.dirname, ".."), ".").replaceAll(servers.dir, "");

async function runOne(scenario, variant, contender, round) {
  const run = { scenario: scenario.name, variant: variant.key, label: variant.label, contender, round };
  const reason = scenario.skip?.(contender);
  if (reason) return { ...run, skipped: reason };
  const from = performance.now();
  try {
    run.metrics = await within(RUN_LIMIT_MS, scenario.name, scenario.run(env, contender, variant));
  } catch (error) {
    run.error = withoutPaths(error.message);
    await killChildren();
  }
  run.seconds = Math.round((performance.now() - from) / 100) / 10;
  return run;
}

function say(scenario, run) {
  const figuresOf = (metrics) =>
    scenario.columns
      .filter((column) => column.value && (column.value(metrics) ?? null) !== null)
      .map((column) => `${column.title} ${short(column.value(metrics))}`)
      .join(" · ");
  const outcome = run.metrics
    ? scenario.parts
      ? Object.entries(scenario.parts(run.metrics))
          .map(([part, metrics]) => `\n    ${part}: ${figuresOf(metrics)}`)
          .join("")
      : figuresOf(run.metrics)
    : run.error
      ? `FAILED: ${run.error.split("\n")[0]}`
      : `left out: ${run.skipped}`;
  console.log(`${run.round} ${run.scenario} ${run.label} · ${run.contender} · ${outcome} (${run.seconds ?? 0} s)`);
}

/** Rotated from round to round; a ceiling comes last, once. */
function takeTurns(round) {
  const [ceilings, players] = [true, false].map((ceiling) =>
    options.contenders.filter((name) => Boolean(CONTENDERS[name].ceiling) === ceiling),
  );
  const turn = (round - 1) % Math.max(1, players.length);
  return [...players.slice(turn), ...players.slice(0, turn), ...(round === 1 ? ceilings : [])];
}

for (let round = 1; round <= options.rounds; round++) {
  const order = takeTurns(round);
  for (const name of options.scenarios) {
    const scenario = SCENARIOS[name];
    if (scenario.long && round > 1) continue;
    for (const variant of scenario.variants(options)) {
      for (const contender of order.filter((one) => takesPart(scenario, one))) {
        const run = await runOne(scenario, variant, contender, round);
        results.runs.push(run);
        say(scenario, run);
      }
    }
    write();
  }
}

write();
for (const verdict of results.verdicts)
  console.log(`${verdict.outcome.padEnd(12)} ${verdict.target}: ${verdict.measured}`);
console.log(`\n${out}.md, ${results.minutes} min`);
await end(results.runs.some((run) => run.error) ? 1 : 0);
