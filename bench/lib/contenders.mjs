/** Who takes part, in the order of the tables. `package` is what a version is read from; a ceiling is run in the first round only. */
export const CONTENDERS = {
  millrace: { server: "postgres", history: "kept" },
  "graphile-worker": { server: "postgres", package: "graphile-worker", history: "deleted" },
  "pg-boss": { server: "postgres", package: "pg-boss", history: "kept" },
  bullmq: { server: "redis", package: "bullmq", history: "deleted" },
  raw: { server: "postgres", history: "kept", ceiling: true },
};

/** Some scenarios ask how Millrace stands up to its own load: nobody else is in them. */
export const takesPart = (scenario, contender) => !scenario.own || contender === "millrace";

export const PEERS = ["graphile-worker", "pg-boss", "bullmq"];
