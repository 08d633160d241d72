import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { cliPlace } from "../cli/process.ts";
import { builtPackage } from "../support/build.ts";

const root = resolve(import.meta.dirname, "../..");
const program = resolve(root, "examples/hello.ts");

test("the program in the README is examples/hello.ts", () => {
  const readme = readFileSync(resolve(root, "README.md"), "utf8");
  const [, block] = /```ts\n([\s\S]*?)```/.exec(readme) ?? [];
  expect(block).toBe(readFileSync(program, "utf8"));
});

test("it greets both, the second one two seconds later, and stops when asked", async () => {
  await using place = await cliPlace();
  const child = spawn(process.execPath, ["--import", import.meta.resolve("tsx"), program], {
    cwd: place.folder,
    env: { ...process.env, ...place.env, ...builtPackage().env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const greeted: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      const name = /Hello, (\w+)!/.exec(line)?.[1];
      if (name !== undefined && greeted.push(name) === 2) break;
    }
    expect(greeted).toEqual(["Ada", "Grace"]);
    const ended = once(child, "exit");
    child.stdout.resume();
    child.kill("SIGINT");
    expect(await ended).toEqual([0, null]);
  } finally {
    child.kill("SIGKILL");
  }
});
