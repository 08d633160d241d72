/** Answers say where things are: what was made in `Location`, the next page in `Link`. */
import { expect, test } from "vitest";
import { task } from "millrace";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

interface Page {
  readonly status: number;
  readonly headers: Headers;
  readonly body: { items: { id: string }[]; next: string | null };
}

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

test("a page leads to the next one, with the same filter, until there is none", async () => {
  await using mill = await file.open([plain]);
  const call = callerOf(createApi(mill, { log: recorder() }));
  const ids = await mill.enqueueMany(plain, [1, 2, 3], { tags: ["x y&z"] });
  const seen: string[] = [];
  let path: string | undefined = "/jobs?limit=1&status=waiting&tag=x%20y%26z";
  for (let pages = 0; path !== undefined && pages < 9; pages += 1) {
    const { status, body, headers }: Page = await call<Page["body"]>(path);
    expect(status).toBe(200);
    seen.push(...body.items.map(({ id }) => id));
    const link: string = headers.get("link") ?? "";
    path = /^<(\/jobs\?[^>]+)>; rel="next"$/.exec(link)?.[1];
    expect(path === undefined).toBe(body.next === null);
  }
  expect(seen.toSorted()).toEqual(ids.toSorted());
});

test("what was made is where Location says, also for a repeat under its key", async () => {
  await using mill = await file.open([plain]);
  const call = callerOf(createApi(mill, { log: recorder() }));
  const asked = [
    ["/api/schedules", { name: "every.hour", task: "plain", every: "1h" }],
    ["/api/schedules/every.hour/run", {}],
    ["/api/bulk", { action: "cancel", filter: { queue: "default" } }],
    ["/dlq/purge", { all: true }],
  ] as const;
  for (const [path, json] of asked) {
    const ask = () => call(path, { json, headers: { "idempotency-key": "k" } });
    const [first, second] = [await ask(), await ask()];
    const location = first.headers.get("location");
    expect([path, (await call(location ?? "/nowhere")).status]).toEqual([path, 200]);
    expect(second.headers.get("location")).toBe(location);
  }
  expect(
    (await call("/api/bulk", { json: { action: "cancel", all: true, preview: true } })).headers.get("location"),
  ).toBeNull();
});
