/** `millrace events`, beside a process that works. */
import { expect, test, vi } from "vitest";
import { cliPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 180_000 });

test("events follows what happens, and goes on after its server has been away", async () => {
  await using place = await cliPlace();
  await place.write(
    "app.ts",
    `import { defineApp, task } from "millrace";
     export default defineApp({ tasks: [task({ name: "hello", run: () => undefined })] });`,
  );
  await using up = place.start("up");
  const address = /http:\/\/127\.0\.0\.1:\d+/.exec(await up.says(/http:\/\/127\.0\.0\.1:\d+/))?.[0] as string;
  await up.says(/worker started/);

  await using text = place.start("events", "--url", address, "--type", "job.completed,worker.*");
  await using json = place.start("events", "--url", address, "--json", "--type", "job.*");
  // Whoever listens hears of what comes after; there is nothing to see before that.
  await vi.waitFor(
    async () => {
      await place.run("enqueue", "hello", "--url", address);
      expect(text.heard(/job\.completed .*task=hello/)).not.toEqual([]);
      expect(json.heard(/"type":"job\.completed"/)).not.toEqual([]);
    },
    { timeout: 120_000, interval: 500 },
  );
  const [line] = json.heard(/"type":"job\.completed"/);
  expect(JSON.parse(line as string)).toMatchObject({ task: "hello", place: expect.any(String) as string });

  const wrong = await place.run("events", "--url", address, "--type", "job.complete");
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('"job.completed"')]);

  text.kill("SIGINT");
  expect((await text.ended).code).toBe(0);
  const port = address.split(":").at(-1) as string;
  up.kill("SIGTERM");
  await up.ended;
  const before = json.heard(/"type":"job\.completed"/).length;
  await using again = place.with({ MILLRACE_PORTS: port }).start("up");
  await again.says(/worker started/);
  await place.run("enqueue", "hello", '{"again":true}', "--url", address);
  await json.hasSaid(before + 1, /"type":"job\.completed"/);
  json.kill("SIGTERM");
  expect((await json.ended).code).toBe(0);
});
