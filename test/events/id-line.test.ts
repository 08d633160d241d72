import { describe, expect, test } from "vitest";
import { IdLine, prepared } from "../../src/events/id-line.ts";

const nobody: ReadonlySet<string> = new Set();
const writers = (...names: string[]): ReadonlySet<string> => new Set(names);

describe("a line of numbers", () => {
  test("moves on with what is read, and keeps what is missing below", () => {
    const line = new IdLine(3);
    line.read([4, 6, 7, 10]);
    expect([line.high, line.gaps]).toEqual([
      10,
      [
        [5, 5],
        [8, 9],
      ],
    ]);
  });

  test("drops a gap once it is filled, whatever else is open", () => {
    const line = new IdLine(0);
    line.read([1, 5]);
    line.beforeRead(writers("a"));
    line.read([3, 6]);
    expect(line.gaps).toEqual([
      [2, 2],
      [4, 4],
    ]);
    line.beforeRead(writers("a"));
    line.read([2, 4]);
    expect(line.gaps).toEqual([]);
  });

  test("gives a gap up only when all who could have filled it have ended, and a read after that has not found it", () => {
    const line = new IdLine(0);
    line.read([2]);
    line.beforeRead(writers("slow", "quick"));
    line.read([]);
    line.beforeRead(writers("slow", "new")); // "new" came after the gap: it can only get higher numbers
    line.read([]);
    expect(line.gaps).toEqual([[1, 1]]);
    line.beforeRead(writers("new"));
    line.read([]);
    expect(line.gaps).toEqual([]);
  });

  test("finds what was committed just before the last writer ended", () => {
    const line = new IdLine(0);
    line.read([2]);
    line.beforeRead(writers("slow"));
    line.read([]);
    line.beforeRead(nobody);
    line.read([1]);
    expect([line.high, line.gaps]).toEqual([2, []]);
  });

  test("waits for prepared transactions, which have lost their names", () => {
    const line = new IdLine(0);
    line.read([2]);
    line.beforeRead(writers("a"));
    line.read([]);
    line.beforeRead(writers(prepared));
    line.read([]);
    expect(line.gaps).toEqual([[1, 1]]);
    line.beforeRead(nobody);
    line.read([]);
    expect(line.gaps).toEqual([]);
  });
});
