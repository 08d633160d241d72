import { describe, expect, test, vi } from "vitest";
import { type Millrace, task } from "millrace";
import { sql } from "../../src/db/sql.ts";
import type { EventStream } from "../../src/events/stream.ts";
import { eventEndpoints } from "../../src/http/events.ts";
import { serve } from "../../src/http/server.ts";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";
import { mounted } from "./mounted.ts";

const file = useDatabase();
const patience = { timeout: 20_000, interval: 10 };
const ok = task({ name: "ok", queue: "mail", run: () => undefined });

interface Told {
  readonly id: string | undefined;
  readonly event: string;
  readonly data: Record<string, unknown>;
}

/** Reads server-sent events as a browser does. */
async function listen(url: string, headers: Record<string, string> = {}) {
  const stop = new AbortController();
  const response = await fetch(url, { headers, signal: stop.signal });
  const told: Told[] = [];
  let text = "";
  let lastId: string | undefined;
  const over = (async () => {
    for await (const chunk of response.body ?? []) {
      text += new TextDecoder().decode(chunk);
      const blocks = text.split("\n\n");
      text = blocks.pop() as string;
      for (const block of blocks) {
        const fields = new Map(
          block
            .split("\n")
            .filter((line) => line !== "" && !line.startsWith(":"))
            .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
        );
        lastId = fields.get("id") ?? lastId;
        const data = fields.get("data");
        if (data !== undefined)
          told.push({
            id: fields.get("id"),
            event: fields.get("event") as string,
            data: JSON.parse(data) as Told["data"],
          });
      }
    }
  })().catch(() => undefined);
  return {
    response,
    told,
    over,
    lastId: () => lastId,
    until: (n: number) => vi.waitFor(() => expect(told.length).toBeGreaterThanOrEqual(n), patience),
    stop: () => stop.abort(),
  };
}

async function open(mill: Millrace) {
  const serving = await serve(createApi(mill, { log: recorder() }), { host: "127.0.0.1", ports: [0], log: recorder() });
  return { url: serving.urls[0] as string, close: () => serving.close(5_000) };
}

describe("GET /events", () => {
  test("tells what happens, and goes on from Last-Event-ID on another server", async () => {
    await using mill = await file.open([ok]);
    const first = await open(mill);
    const client = await listen(`${first.url}/events?type=job.*,queue.paused`);
    expect(client.response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    await vi.waitFor(() => expect(client.lastId()).toBeDefined(), patience);
    const one = await mill.enqueue(ok, null);
    await client.until(1);
    expect(client.told[0]).toEqual({
      id: expect.any(String) as string,
      event: "job.enqueued",
      data: {
        type: "job.enqueued",
        id: `job-${one.id}`,
        at: expect.any(String) as string,
        job_id: one.id,
        queue: "mail",
        task: "ok",
        run_at: expect.any(String) as string,
        replay_of: null,
      },
    });
    const closed = performance.now();
    await first.close();
    await client.over;
    expect(performance.now() - closed).toBeLessThan(4_000);
    const two = await mill.enqueue(ok, null);
    await mill.pause("mail", { by: "ada" });
    const second = await open(mill);
    const again = await listen(`${second.url}/events?type=job.*,queue.paused`, {
      "Last-Event-ID": client.lastId() as string,
    });
    await again.until(2);
    expect(again.told.map(({ data }) => data["job_id"] ?? data["by"])).toEqual([two.id, "ada"]);
    again.stop();
    await second.close();
  });

  test("takes one job, and one queue", async () => {
    await using mill = await file.open([ok]);
    const { url, close } = await open(mill);
    const { id } = await mill.enqueue(ok, null, { delay: "1h" });
    const job = await listen(`${url}/events?job=${id}`);
    const queue = await listen(`${url}/events?queue=else`);
    await vi.waitFor(() => expect([job.lastId(), queue.lastId()]).not.toContain(undefined), patience);
    await mill.promote(id, { by: "ada" });
    await mill.enqueue(ok, null);
    await mill.enqueue("other", null, { queue: "else" });
    await job.until(1);
    await queue.until(1);
    expect(job.told).toMatchObject([{ event: "job.promoted", data: { job_id: id, by: "ada" } }]);
    expect(queue.told).toMatchObject([{ event: "job.enqueued", data: { queue: "else" } }]);
    job.stop();
    queue.stop();
    await close();
  });

  test("refuses what it does not understand", async () => {
    await using mill = await file.open([ok]);
    const call = callerOf(createApi(mill, { log: recorder() }));
    expect(await call("/events?type=job.complete")).toMatchObject({ status: 400, body: { code: "OPTION_INVALID" } });
    expect(await call("/events?jobs=1")).toMatchObject({ status: 400, body: { code: "OPTION_UNKNOWN" } });
    expect(await call("/events", { headers: { "last-event-id": "7" } })).toMatchObject({
      status: 400,
      body: { code: "OPTION_INVALID" },
    });
    expect(await call("/events", { from: "10.0.0.1" })).toMatchObject({ status: 401 });
  });

  test("answers HEAD without listening to anything", async () => {
    await using mill = await file.open([ok]);
    const listening = vi.spyOn(mill, "events");
    const { status, headers } = await mounted(eventEndpoints(mill)).request("/events", { method: "HEAD" });
    expect([status, headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    expect(listening).not.toHaveBeenCalled();
  });

  test("beats while nothing happens, and moves the place of a client for whom nothing is on", async () => {
    await using mill = await file.open([ok]);
    const response = await mounted(eventEndpoints(mill, 50)).request("/events?type=worker.lost");
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const read = async () => new TextDecoder().decode((await reader.read()).value);
    const begin = await read();
    expect(begin).toMatch(/^retry: \d+\n: listening\nid: \S+\n\n$/);
    await vi.waitFor(async () => expect(await read()).toMatch(/^: still here\nid: \S+\n\n$/), patience);
    await reader.cancel();
  });

  test("ends with a reason when the client does not read, and says from where to go on", async () => {
    await using mill = await file.open([ok]);
    const opened = vi.spyOn(mill, "events");
    const response = await mounted(eventEndpoints(mill)).request("/events?type=audit.noted");
    const stream = opened.mock.results[0]?.value as EventStream;
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const read = async () => new TextDecoder().decode((await reader.read()).value);
    expect(await read()).toContain("listening");
    await mill.db.query(
      sql`insert into millrace.audit (action, subject) select 'test', 'test:' || n from generate_series(1, 12000) n`,
    );
    const texts: string[] = [];
    // It takes one block in advance and then waits; meanwhile the buffer runs over.
    await vi.waitFor(() => expect(stream.closed).toBe(true), patience);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      texts.push(new TextDecoder().decode(value));
    }
    expect(texts.at(-1)).toMatch(/^event: stream\.ended\ndata: .*"reason":"EVENTS_TOO_SLOW"/);
  });

  test("says that it ends when the Millrace is closed", async () => {
    const mill = await file.open([ok]);
    const response = await mounted(eventEndpoints(mill)).request("/events");
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    await reader.read(); // it listens
    await mill.close();
    expect(new TextDecoder().decode((await reader.read()).value)).toContain('"reason":"CLOSED"');
  });
});
