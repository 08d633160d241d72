/** `millrace migrate`: brings the schema up to date, or prints the SQL for those who apply it themselves. */
import { readConfig } from "../app/config.ts";
import { latestVersion, migrate as applyMigrations, printMigrations } from "../db/migrate.ts";
import { command, everyCommand } from "./command.ts";
import { openDatabase } from "./open-database.ts";
import { print, printJson } from "./print.ts";

export const migrate = command({
  meta: { name: "migrate", description: "Bring the database's schema up to date" },
  args: {
    print: { type: "boolean", description: "Print the SQL of all migrations instead; touches no database" },
    ...everyCommand,
  },
  async run({ args }) {
    const config = readConfig(process.env);
    if (args.print) {
      const script = printMigrations(config.schema);
      return args.json ? printJson({ schema: config.schema, version: latestVersion, sql: script }) : print(script);
    }
    const db = await openDatabase(config);
    try {
      const applied = await applyMigrations(db);
      if (args.json) return printJson({ schema: db.schema, version: latestVersion, applied });
      for (const name of applied) print(`Applied ${name}`);
      print(`Schema ${db.schema} is at version ${latestVersion}${applied.length === 0 ? " already" : ""}.`);
    } finally {
      await db.close();
    }
  },
});
