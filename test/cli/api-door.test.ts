/** The API made over a database, for one command: what protects a server does not stand in its way. */
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { Millrace } from "millrace";
import { type ApiDoor, doorOf } from "../../src/cli/api-door.ts";
import { withQuery } from "../../src/cli/ask-api.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
let mill: Millrace;
let door: ApiDoor;
beforeAll(async () => {
  mill = await file.open([], { maxPayloadBytes: 100 });
  door = doorOf(mill);
  return () => door.close();
});
afterEach(() => vi.restoreAllMocks());

test("an input of any length is for the library to refuse, which also writes it down", async () => {
  const input = "x".repeat(100_000);
  await expect(door.ask("POST", "/jobs", { task: "a", input })).rejects.toMatchObject({
    code: "PAYLOAD_TOO_LARGE",
    message: "The input is 100002 bytes of JSON; the limit is 100.",
  });
  expect(await mill.policies.denials()).toMatchObject([{ queue: "default", reason_code: "PAYLOAD_TOO_LARGE" }]);
});

test("a cancel waits as long as it was told to", async () => {
  const { id } = await mill.enqueue("a", {});
  const cancel = vi.spyOn(mill, "cancel").mockResolvedValue({ status: "cancelled", ignored: false });
  await door.ask("POST", `/jobs/${id}/cancel`, { wait: 600_000 });
  expect(cancel).toHaveBeenCalledWith(id, { within: 600_000 });
});

describe("an error", () => {
  test("that nobody expected leaves as it was thrown", async () => {
    const error = new Error("relation does not exist");
    vi.spyOn(mill, "workers").mockRejectedValue(error);
    await expect(door.ask("GET", "/api/workers")).rejects.toBe(error);
  });

  test("of a database that went away is DATABASE_UNREACHABLE, with the reason", async () => {
    vi.spyOn(mill, "workers").mockRejectedValue(Object.assign(new Error("read"), { code: "ECONNRESET" }));
    await expect(door.ask("GET", "/api/workers")).rejects.toMatchObject({
      code: "DATABASE_UNREACHABLE",
      message: "The database does not answer any more: read",
    });
  });

  test("that the API has for a path is a MillraceError with its code", async () => {
    await expect(door.ask("GET", "/nowhere")).rejects.toMatchObject({ code: "ROUTE_NOT_FOUND" });
  });
});

test("a query holds the conditions that were given, and refuses an empty one", () => {
  expect(withQuery("/jobs", { queue: undefined })).toBe("/jobs");
  expect(withQuery("/jobs", { queue: "a", tag: "b & c", limit: 5 })).toBe("/jobs?queue=a&tag=b+%26+c&limit=5");
  expect(() => withQuery("/jobs", { queue: "" })).toThrow("queue must not be empty.");
});
