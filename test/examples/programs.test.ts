/** The programs in examples/ do what they say. */
import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { cliPlace } from "../cli/process.ts";
import { builtPackage } from "../support/build.ts";

const root = resolve(import.meta.dirname, "../..");

const programs: Readonly<Record<string, RegExp>> = {
  "nightly-report": /^2 missed\n1 fired\nThe report is of the last night\.\n$/,
  import: /\{ kinds: 58, largest: 'pull_request', deliveries: 329, unreadable: 1 \}\n$/,
  saga: /Ada: \{ paid: 'charged good', flight: 'LH 400' \}\nEve: \{ why: 'not paid', undone: 2 \}\nEve: flight booked\nEve: hotel booked\nEve: hotel cancelled\nEve: flight LH 400 cancelled\n$/,
  tenants: /done after \d\d? of the large one's 1000\.\n$/,
  "api-client": /^60 pages in \d+\.\d s, \d+ refused\.\n$/,
};

test.for(Object.entries(programs))("examples/%s.ts", async ([name, printed]) => {
  await using place = await cliPlace();
  const program = resolve(root, `examples/${name}.ts`);
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ["--import", import.meta.resolve("tsx"), program],
    { cwd: place.folder, env: { ...process.env, ...place.env, ...builtPackage().env } },
  );
  expect(stderr).toBe("");
  expect(stdout).toMatch(printed);
});
