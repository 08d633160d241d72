/** DBOS without a queue, its shortest way: workflows are called in the process that runs them. Keeps history. */
import { DBOS } from "@dbos-inc/dbos-sdk";
import { query } from "../lib/connect.mjs";

const settings = { systemDatabasePoolSize: 10, logLevel: "error" };

const stepping = DBOS.registerWorkflow(
  async (steps) => {
    for (let n = 0; n < steps; n++) await DBOS.runStep(async () => n, { name: `step ${n}` });
  },
  { name: "stepping" },
);

export default {
  settings: { worker: settings, producer: {} },

  async openProducer(url) {
    DBOS.setConfig({ name: "bench", systemDatabaseUrl: url, ...settings });
    await DBOS.launch();
    return {
      async steps(runs, steps, atOnce) {
        let left = runs;
        const loop = async () => {
          while (left-- > 0) await stepping(steps);
        };
        await Promise.all(Array.from({ length: atOnce }, loop));
      },
      async keptSteps() {
        const [{ kept }] = await query(url, "select count(*)::int as kept from dbos.operation_outputs");
        return kept;
      },
      close: () => DBOS.shutdown(),
    };
  },
};
