/** Who takes part, in the order of the tables. `package` is what a version is read from; a ceiling is run in the first round only. */
export const CONTENDERS = {
  millrace: { server: "postgres", history: "kept" },
  "graphile-worker": { server: "postgres", package: "graphile-worker", history: "deleted" },
  "pg-boss": { server: "postgres", package: "pg-boss", history: "kept" },
  bullmq: { server: "redis", package: "bullmq", history: "deleted" },
  dbos: { server: "postgres", package: "@dbos-inc/dbos-sdk", history: "kept" },
  absurd: { server: "postgres", package: "absurd-sdk", history: "kept" },
  raw: { server: "postgres", history: "kept", ceiling: true },
};

/** Those it is compared with as a queue of jobs. */
export const PEERS = ["graphile-worker", "pg-boss", "bullmq"];
const QUEUES = ["millrace", ...PEERS, "raw"];

/** Some scenarios ask how Millrace stands up to its own load: nobody else is in them. Others are `among` those who can do it at all. */
const among = (scenario) => (scenario.own ? ["millrace"] : (scenario.among ?? QUEUES));
export const takesPart = (scenario, contender) => among(scenario).includes(contender);

/** Whom Millrace is compared with in any of these. */
export const peersIn = (scenarios) => {
  const here = new Set(scenarios.flatMap(among));
  return Object.keys(CONTENDERS).filter((name) => here.has(name) && name !== "millrace" && !CONTENDERS[name].ceiling);
};
