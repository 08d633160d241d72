import { join, resolve } from "node:path";
import { type Millrace, defineApp, millrace } from "millrace";
import { expect, test } from "vitest";
import { backend } from "../support/database.ts";
import { type Place, cliPlace } from "../cli/process.ts";

const app = resolve(import.meta.dirname, "../../examples/github-webhooks/app.ts");

test(
  "killed while it takes deliveries in, and again while it works on them, it ends with each of them once",
  { timeout: 180_000 },
  async () => {
    await using place = (await cliPlace()).with({
      MILLRACE_LOG_LEVEL: "debug",
      MILLRACE_LEASE_SECONDS: "1",
      MILLRACE_REAP_INTERVAL_MS: "250",
    });
    expect(await killAt(place, 100, /"msg":"received"/)).toBeLessThan(329);
    expect(await killAt(place, 20, /"task":"add-to-feed".*"repository":/)).toBeLessThan(280);

    await using up = place.start("up", "--json", "--app", app);
    const report = JSON.parse(await up.says(/"rejected":/)) as object;
    expect(report).toMatchObject({ deliveries: 329, lines: 280, repositories: 13, rejected: 49 });
    up.kill("SIGTERM");
    expect((await up.ended).code).toBe(0);

    await using mill = await open(place);
    const { rows } = await mill.transaction((tx) =>
      tx.query("select count(*)::int as lines, count(distinct delivery)::int as deliveries from github_feed", []),
    );
    expect(rows).toEqual([{ lines: 280, deliveries: 280 }]);
    expect(await mill.stats("github")).toMatchObject([
      { completed: 280, failed: 49, waiting: 0, active: 0, delayed: 0 },
    ]);
  },
);

/** Runs the example until it has said something so often, then kills it as `kill -9` does. Returns how often it came to say it. */
async function killAt(place: Place, count: number, pattern: RegExp): Promise<number> {
  await using up = place.start("up", "--json", "--app", app);
  await up.hasSaid(count, pattern);
  up.kill("SIGKILL");
  await up.ended;
  return up.heard(pattern).length;
}

function open({ folder, env }: Place): Promise<Millrace> {
  const data =
    backend === "pglite"
      ? { databaseUrl: null, dataDir: join(folder, ".millrace") }
      : { databaseUrl: env["DATABASE_URL"] as string };
  return millrace(defineApp({ tasks: [] }), { ...data, migrate: false });
}
