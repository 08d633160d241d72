/** The command line. */
import { parseArgs } from "node:util";
import { CONTENDERS } from "./contenders.mjs";
import { SCENARIOS } from "../scenarios/index.mjs";

const NAMED = Object.keys(SCENARIOS).filter((name) => SCENARIOS[name].named);

export const HELP = `Usage: node bench/run.mjs [options]

  --scenarios a,b    ${Object.keys(SCENARIOS).join(", ")}
                     (memory: with --long; ${NAMED.join(", ")}: only when named)
  --contenders x,y   ${Object.keys(CONTENDERS).join(", ")}
  --rounds n         how often everything is run (default 3)
  --long             also the ten minutes of the memory scenario, for each contender, once
  --quick            one round of small numbers: shows that it works, not how fast
  --out file         where the results go, without .json and .md (default bench/results/<date>-<machine>)

  BENCH_DATABASE_URL, BENCH_REDIS_URL   running servers to use instead of own ones; the Redis database is emptied
  BENCH_PG_BIN, BENCH_DATA_DIR          where PostgreSQL's programs are; where the servers put their data
  BENCH_ABSURD_SQL                      absurd's sql/absurd.sql, which its npm package is without; if not set, absurd is left out`;

function listed(what, text, known, byDefault) {
  const names = text ? text.split(",").filter(Boolean) : byDefault;
  const unknown = names.filter((name) => !(name in known));
  if (unknown.length > 0)
    throw new Error(`unknown ${what}: ${unknown.join(", ")}. Known: ${Object.keys(known).join(", ")}`);
  return names;
}

export function readOptions(argv) {
  const { values } = parseArgs({
    args: argv,
    options: {
      scenarios: { type: "string" },
      contenders: { type: "string" },
      rounds: { type: "string" },
      out: { type: "string" },
      long: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`--rounds ${values.rounds}: a whole number from 1`);
  const usual = Object.keys(SCENARIOS).filter(
    (name) => !SCENARIOS[name].named && (values.long || !SCENARIOS[name].long),
  );
  const { help, long, out, quick } = values;
  return {
    help,
    long,
    out,
    quick,
    rounds,
    scenarios: listed("scenario", values.scenarios, SCENARIOS, usual),
    contenders: listed("contender", values.contenders, CONTENDERS, Object.keys(CONTENDERS)),
  };
}
