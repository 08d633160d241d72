import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { cliPlace } from "../cli/process.ts";

const root = resolve(import.meta.dirname, "../..");

test("examples/remote.ts asks a server, and says what became of its jobs", async () => {
  await using place = await cliPlace();
  await using up = place.start("up", "--app", resolve(root, "examples/github-webhooks/app.ts"));
  const [url = ""] = /http:\/\/127\.0\.0\.1:\d+/.exec(await up.says(/http:\/\/127\.0\.0\.1:\d+/)) ?? [];
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ["--import", import.meta.resolve("tsx"), resolve(root, "examples/remote.ts")],
    { env: { ...process.env, ...place.env, MILLRACE_URL: url, TSX_TSCONFIG_PATH: resolve(root, "tsconfig.json") } },
  );
  expect(stderr).toBe("");
  const lines = stdout.trimEnd().split("\n");
  expect(lines).toMatchObject([
    expect.stringMatching(/^Enqueued/),
    expect.stringMatching(/^Attempt 1 succeeded/),
    "Asked again, it is the same job.",
    expect.stringMatching(/There is no scene 3/),
  ]);
});
