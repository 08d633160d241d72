import { describe, expect, test } from "vitest";
import { type TaskOptions, task } from "millrace";

const url = new URL("./handlers/acts.ts", import.meta.url);
const define = (options: object) => task({ name: "t", ...options } as TaskOptions<undefined, void>);

describe("isolate", () => {
  test("takes a kind alone, or with its limits", () => {
    expect(define({ run: url, isolate: "thread" }).isolate).toMatchObject({
      in: "thread",
      module: url.href,
      graceMs: 1_000,
    });
    expect(define({ run: url.href, isolate: { in: "process", memoryMb: 256, size: 2, grace: "5s" } }).isolate).toEqual({
      in: "process",
      module: url.href,
      memoryMb: 256,
      size: 2,
      graceMs: 5_000,
    });
    expect(define({ run: () => 1 }).isolate).toBeUndefined();
  });

  test.each([
    [
      "a function with isolate",
      { run: () => 1, isolate: "thread" },
      /run must be the URL of a module whose default export/,
    ],
    ["a module without", { run: url }, /only a task with isolate: "thread" or "process" can run/],
    ["neither", { run: 7 }, /run must be a function, or, with isolate, the URL of a module/],
    ["a path", { run: "./acts.ts", isolate: "thread" }, /run must be a file: URL, not "\.\/acts\.ts"/],
    ["another kind", { run: url, isolate: "fibre" }, /isolate must be "thread", "process" or/],
    ["no kind", { run: url, isolate: { size: 2 } }, /isolate must be "thread", "process" or/],
    [
      "too little memory",
      { run: url, isolate: { in: "thread", memoryMb: 1 } },
      /isolate\.memoryMb must be a whole number from 32/,
    ],
    ["no seat", { run: url, isolate: { in: "thread", size: 0 } }, /isolate\.size must be a whole number from 1/],
    [
      "a grace for ever",
      { run: url, isolate: { in: "thread", grace: "1h" } },
      /isolate\.grace must be a minute at most/,
    ],
  ])("refuses %s", (_, options, message) => {
    expect(() => define(options)).toThrow(
      expect.objectContaining({ code: "OPTION_INVALID", message: expect.stringMatching(message) }),
    );
  });

  test("names the nearest option", () => {
    expect(() => define({ run: url, isolate: { in: "thread", memoryMB: 64 } })).toThrow(/Did you mean "memoryMb"/);
  });
});
