import { expect, test } from "vitest";
import { type Millrace, task } from "millrace";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
const plain = task({ name: "plain", queue: "signed", run: () => undefined });

const orders: readonly [name: string, give: (mill: Millrace, by: string) => Promise<unknown>][] = [
  ["pause", (mill, by) => mill.pause("signed", { by })],
  ["policies.set", (mill, by) => mill.policies.set("signed", { concurrency: 1 }, { by })],
  ["policies.remove", (mill, by) => mill.policies.remove("signed", { by })],
  ["drain", (mill, by) => mill.drain({ by })],
  ["undrain", (mill, by) => mill.undrain({ by })],
  ["schedules.pause", (mill, by) => mill.schedules.pause("hourly", { by })],
  ["schedules.resume", (mill, by) => mill.schedules.resume("hourly", { by })],
];

test.each(orders)(
  "%s refuses a signature that PostgreSQL cannot hold, or that is longer than any name",
  async (_, give) => {
    const mill = await file.open([plain]);
    await mill.enqueue(plain, null);
    await mill.schedules.create({ name: "hourly", task: "plain", every: "1h" });
    for (const by of ["a\0b", "\ud800", "x".repeat(201), 7 as unknown as string])
      await expect(give(mill, by)).rejects.toMatchObject({ code: "OPTION_INVALID" });
  },
);
