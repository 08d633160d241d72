import { commands } from "../../src/cli/commands.ts";
import { expect, test } from "vitest";
import { version } from "../../src/app/version.ts";
import { emptyPlace } from "./process.ts";

test("an unknown command is refused with the nearest one that exists", async () => {
  await using place = await emptyPlace();
  const { code, stderr } = await place.run("wroker");
  expect(stderr).toContain('There is no command "wroker". Did you mean "worker"?');
  expect(code).toBe(2);
});

test("an unknown option is refused in a sentence that names its code, and nothing is done", async () => {
  await using place = await emptyPlace();
  const { code, stdout, stderr } = await place.run("enqueue", "hello", "--qeue", "mail");
  expect(stderr).toMatch(
    /^millrace: millrace enqueue: unknown option "--qeue". Did you mean "--queue"\?\n {2}OPTION_UNKNOWN: /,
  );
  expect(stdout).toBe("");
  expect(code).toBe(2);
});

test.for([
  [["purge", "--all", "--limit", "5"], "millrace dlq purge: --limit is for list."],
  [["replay", "--task", "fail", "--after", "abc"], "millrace dlq replay: --after is for list."],
  [["retry", "--all", "--limit=5"], "millrace dlq retry: --limit is for list."],
  [["retry", "--all", "--group", "task"], "millrace dlq retry: --group is for list."],
  [["retry", "--all", "--to-queue", "a"], "millrace dlq retry: --to-queue is for replay."],
  [["--older-than", "1h"], "millrace dlq list: --older-than is for retry, replay, purge."],
  [["list", "--preview"], "millrace dlq list: --preview is for retry, replay, purge."],
  [["--group", "task", "--limit", "5"], "millrace dlq: --limit is for the list, and --group counts."],
] as const)("an option of another action is refused: dlq %j", async ([args, message]) => {
  await using place = await emptyPlace();
  const { code, stdout, stderr } = await place.run("dlq", ...args);
  expect(stderr).toContain(`millrace: ${message}\n  OPTION_INVALID: `);
  expect(stdout).toBe("");
  expect(code).toBe(2);
});

test("with --json an error is one JSON object on standard error", async () => {
  await using place = await emptyPlace();
  const { code, stdout, stderr } = await place.run("jobs", "--json", "--nope");
  expect(JSON.parse(stderr)).toEqual({
    code: "OPTION_UNKNOWN",
    message: expect.stringContaining('"--nope"'),
    action: expect.any(String),
  });
  expect(stdout).toBe("");
  expect(code).toBe(2);
});

test("without a command it says which there are, and that this was wrong", async () => {
  await using place = await emptyPlace();
  const { code, stdout } = await place.run();
  expect(stdout).toContain(Object.keys(commands).join("|"));
  expect(code).toBe(2);
});

test("--version prints the package's version", async () => {
  await using place = await emptyPlace();
  expect(await place.run("--version")).toEqual({ code: 0, stdout: version, stderr: "" });
});

test("--help prints how to call a command, without colours when nobody sees them", async () => {
  await using place = await emptyPlace();
  const { code, stdout } = await place.run("jobs", "--help");
  expect(stdout).toContain("--status");
  expect(stdout).not.toContain("\u001b");
  expect(code).toBe(0);
});
