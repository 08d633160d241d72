/** What a scrape says, when it says less, and that names, docs and alert rules are about the same metrics. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Millrace, task } from "millrace";
import type { Database } from "../../src/db/database.ts";
import { families } from "../../src/metrics/families.ts";
import { Metrics, type MetricsOptions } from "../../src/metrics/metrics.ts";
import { silent } from "../../src/core/log.ts";
import { callerOf, createApi, recorder } from "../http/caller.ts";
import { foldAll, useDatabase } from "../support/engine.ts";
import { StoreWorker, succeeded } from "../support/store-worker.ts";
import { samplesOf, typesOf, valuesOf } from "./scrape.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });
const page = readFileSync("docs/reference/metrics.md", "utf8");
const rules = readFileSync("deploy/prometheus/millrace-rules.yml", "utf8");

/** Two seconds pass between any two looks at the clock, unless a test has one of its own: every scrape is a new one. */
const metricsOf = (db: Database, options: Partial<MetricsOptions> = {}): Metrics => {
  let ms = 0;
  const clock = (): number => (ms += 2_000);
  return new Metrics(db, {
    prefix: "millrace_",
    version: "1.2.3",
    diskUsed: async () => 0.25,
    log: silent,
    clock,
    ...options,
  });
};

/** Two queues, jobs in every state, a policy, a pause, a dead letter. */
async function setUp(): Promise<Millrace> {
  const mill = await file.open([plain]);
  const worker = await StoreWorker.register(mill);
  const ids = await mill.enqueueMany(plain, [1, 2, 3, 4, 5, 6]);
  const claim = await worker.claim(4);
  await worker.settle(claim, { [ids[0] ?? ""]: succeeded, [ids[1] ?? ""]: { next: "dead" } });
  await mill.enqueue(plain, 7, { delay: "1h" });
  await mill.policies.set("mail", { concurrency: 3 });
  await mill.pause("mail");
  await foldAll(mill);
  return mill;
}

describe("a scrape", () => {
  test("tells where jobs are and what became of them", async () => {
    await using mill = await setUp();
    const text = await metricsOf(mill.db).text();
    expect(valuesOf(text, "millrace_queue_jobs")).toMatchObject({
      '{queue="default",state="runnable"}': 2,
      '{queue="default",state="delayed"}': 1,
      '{queue="default",state="blocked"}': 0,
      '{queue="default",state="active"}': 2,
      '{queue="mail",state="runnable"}': 0,
    });
    expect(valuesOf(text, "millrace_queue_paused")).toEqual({ '{queue="default"}': 0, '{queue="mail"}': 1 });
    expect(valuesOf(text, "millrace_queue_concurrency_limit")).toEqual({ '{queue="mail"}': 3 });
    const oldest = valuesOf(text, "millrace_queue_oldest_runnable_timestamp_seconds");
    expect(Object.keys(oldest)).toEqual(['{queue="default"}']);
    expect(Math.abs(Date.now() / 1_000 - Object.values(oldest)[0]!)).toBeLessThan(60);
    expect(valuesOf(text, "millrace_dead_letters")).toMatchObject({
      '{queue="default",reason="NON_RETRYABLE"}': 1,
      '{queue="default",reason="POISON"}': 0,
    });
    expect(valuesOf(text, "millrace_jobs_finished_total")).toEqual({
      '{queue="default",outcome="completed"}': 1,
      '{queue="default",outcome="failed"}': 1,
      '{queue="default",outcome="cancelled"}': 0,
      '{queue="mail",outcome="completed"}': 0,
      '{queue="mail",outcome="failed"}': 0,
      '{queue="mail",outcome="cancelled"}': 0,
    });
    expect(valuesOf(text, "millrace_enqueue_decisions_total")).toMatchObject({
      '{queue="default",decision="accepted",reason=""}': 7,
      '{queue="default",decision="denied",reason="PAYLOAD_TOO_LARGE"}': 0,
    });
    expect(valuesOf(text, "millrace_workers")).toEqual({
      '{state="working"}': 1,
      '{state="draining"}': 0,
      '{state="silent"}': 0,
    });
    const buckets = valuesOf(text, "millrace_job_duration_seconds_bucket");
    expect(Object.keys(buckets).filter((labels) => labels.includes("default"))).toHaveLength(13);
    expect(buckets['{queue="default",le="+Inf"}']).toBe(1);
    expect(valuesOf(text, "millrace_job_duration_seconds_count")['{queue="default"}']).toBe(1);
    expect(samplesOf(text).get("millrace_database_up")).toBe(1);
    expect(samplesOf(text).get("millrace_disk_used_ratio")).toBe(0.25);
    expect([...samplesOf(text).values()].length).toBe(text.split("\n").filter((line) => /^[a-z]/.test(line)).length);
  });

  test("counts as expired what a silent worker holds", async () => {
    await using mill = await setUp();
    await mill.db.script("update millrace.workers set beat_at = now() - interval '1 hour'");
    const text = await metricsOf(mill.db).text();
    expect(valuesOf(text, "millrace_jobs_lease_expired")).toEqual({ '{queue="default"}': 2, '{queue="mail"}': 0 });
    expect(valuesOf(text, "millrace_workers")['{state="silent"}']).toBe(1);
    expect(samplesOf(text).get("millrace_worker_slots")).toBe(0);
  });

  test("tells the same of the database from every process", async () => {
    await using mill = await setUp();
    const own = async (): Promise<unknown> => {
      const text = await metricsOf(mill.db).text();
      const names = families.filter(({ name }) => !name.startsWith("database_")).map(({ name }) => `millrace_${name}`);
      const still = names.filter((name) => name !== "millrace_counted_until_timestamp_seconds");
      return still.map((name) => [name, valuesOf(text, name)]);
    };
    expect(await own()).toEqual(await own());
  });

  test("uses the prefix it is given, and never a label of Prometheus's own", async () => {
    await using mill = await setUp();
    const text = await metricsOf(mill.db, { prefix: "trendspark_" }).text();
    expect(valuesOf(text, "trendspark_job_duration_seconds_bucket")).toHaveProperty('{queue="default",le="0.1"}');
    expect(text).not.toContain("millrace_");
    expect(text).not.toMatch(/[{,](job|instance)="/);
  });

  test("is shared: however many ask within two seconds, the database is asked once", async () => {
    await using mill = await setUp();
    let statements = 0;
    const counting: Database = {
      ...mill.db,
      query: (query) => {
        statements += 1;
        return mill.db.query(query);
      },
    };
    const metrics = metricsOf(counting);
    await Promise.all(Array.from({ length: 5 }, () => metrics.text()));
    await metrics.text();
    expect(statements).toBe(8);
  });

  test("is written once for all who ask meanwhile, and within a second", async () => {
    await using mill = await setUp();
    let measured = 0;
    let ms = 0;
    const diskUsed = async (): Promise<number> => (measured += 1) / 100;
    const metrics = metricsOf(mill.db, { diskUsed, clock: () => ms });
    const texts = await Promise.all(Array.from({ length: 5 }, () => metrics.text()));
    ms = 999;
    expect(new Set([...texts, await metrics.text()]).size).toBe(1);
    ms = 2_000; // from the first second on the next is under way
    expect(valuesOf(await metrics.text(), "millrace_disk_used_ratio")).toEqual({ "": 0.02 });
  });
});

describe("too many queues", () => {
  test("are one, the same ones for ever, and their number is told", async () => {
    await using mill = await setUp();
    const metrics = metricsOf(mill.db, { cap: 1 });
    const before = valuesOf(await metrics.text(), "millrace_enqueue_decisions_total");
    expect(before['{queue="default",decision="accepted",reason=""}']).toBe(7);
    expect(before['{queue="_other",decision="accepted",reason=""}']).toBe(0);
    await mill.enqueueMany(plain, [1, 2], { queue: "a" });
    await mill.enqueueMany(plain, [1, 2, 3], { queue: "b" });
    await foldAll(mill);
    const text = await metricsOf(mill.db, { cap: 1 }).text();
    expect(valuesOf(text, "millrace_enqueue_decisions_total")['{queue="_other",decision="accepted",reason=""}']).toBe(
      5,
    );
    expect(valuesOf(text, "millrace_queue_jobs")['{queue="_other",state="runnable"}']).toBe(5);
    expect(Object.keys(valuesOf(text, "millrace_job_duration_seconds_count"))).toEqual([
      '{queue="default"}',
      '{queue="_other"}',
    ]);
    expect(valuesOf(text, "millrace_series_dropped_total")['{label="queue"}']).toBe(3);
  });

  test("or routes neither: the codes are still told", async () => {
    await using mill = await setUp();
    const metrics = metricsOf(mill.db, { cap: 2 });
    for (const route of ["/a", "/b", "/c", "/d"])
      metrics.request({ method: "GET", route, route_class: "api", code: 200 }, 0.55);
    metrics.request({ method: "BREW", route: "/a", route_class: "api", code: 405 }, 0.7);
    const text = await metrics.text();
    expect(valuesOf(text, "http_request_duration_seconds_count")).toEqual({
      '{method="GET",route="/a",route_class="api",code="200"}': 1,
      '{method="GET",route="/b",route_class="api",code="200"}': 1,
      '{method="_other",route="_other",route_class="api",code="200"}': 2,
      '{method="_other",route="_other",route_class="api",code="405"}': 1,
    });
    const labels = 'method="GET",route="/a",route_class="api",code="200"';
    const buckets = valuesOf(text, "http_request_duration_seconds_bucket");
    expect([buckets[`{le="0.5",${labels}}`], buckets[`{le="0.6",${labels}}`]]).toEqual([0, 1]);
    expect(valuesOf(text, "millrace_series_dropped_total")['{label="route"}']).toBe(3);
  });
});

describe("with the database away", () => {
  test.each(["refuses", "hangs"])(
    "(it %s) a scrape tells of the process, says so, counts it, and says more once it is back",
    async (how) => {
      await using mill = await setUp();
      let there = false;
      let giveUp = (): void => undefined;
      const refused = Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
      const away = (): Promise<never> =>
        how === "refuses"
          ? Promise.reject(refused)
          : new Promise((_, reject) => {
              giveUp = () => reject(refused); // as the pool does after its time-out
            });
      const metrics = metricsOf(
        { ...mill.db, query: (query) => (there ? mill.db.query(query) : away()) },
        { budgetMs: 50 },
      );
      for (const errors of [1, 2]) {
        const text = await metrics.text();
        expect(samplesOf(text).get("millrace_database_up")).toBe(0);
        expect(valuesOf(text, "millrace_collect_errors_total")).toEqual({
          '{source="database"}': errors,
          '{source="disk"}': 0,
        });
        expect(samplesOf(text).get("process_start_time_seconds")).toBeGreaterThan(0);
        expect(typesOf(text).has("millrace_queue_jobs")).toBe(false);
        expect(samplesOf(text).has("millrace_database_clock_skew_seconds")).toBe(false);
      }
      there = true;
      giveUp();
      await expect.poll(async () => samplesOf(await metrics.text()).get("millrace_database_up")).toBe(1);
    },
  );

  test("or the disk, the rest is there", async () => {
    await using mill = await setUp();
    const text = await metricsOf(mill.db, { diskUsed: () => Promise.reject(new Error("no such disk")) }).text();
    expect(valuesOf(text, "millrace_collect_errors_total")['{source="disk"}']).toBe(1);
    expect(samplesOf(text).has("millrace_disk_used_ratio")).toBe(false);
    expect(samplesOf(text).get("millrace_database_up")).toBe(1);
  });
});

describe("names", () => {
  /** Rows of the page: name without prefix, type, labels, meaning. */
  const rows = [...page.matchAll(/^\| `([a-z_]+)` \| (counter|gauge|histogram) \| ([^|]*) \| ([^|]*) \|$/gm)].map(
    ([, name = "", type = "", labels = "", help = ""]) => ({
      name,
      type,
      labels: [...labels.matchAll(/`([a-z_]+)`/g)].map(([, label]) => label),
      help,
    }),
  );

  test("of what is read from the database are those of the reference, with type, labels and meaning", () => {
    const documented = rows.filter(({ name }) => families.some((family) => family.name === name));
    expect(documented).toEqual(families.map(({ name, type, labels, help }) => ({ name, type, labels, help })));
  });

  test("of everything in a scrape are in the reference, and the other way round", async () => {
    await using mill = await setUp();
    const types = typesOf(await metricsOf(mill.db).text());
    const own = [...types].filter(([name]) => !/^(process|nodejs)_/.test(name));
    const documented = rows.map(({ name, type }) => [name.startsWith("http_") ? name : `millrace_${name}`, type]);
    expect(new Set(documented.map(String))).toEqual(new Set(own.map(String)));
  });

  test("in the alert rules are those of a scrape, with the labels it has", async () => {
    await using mill = await setUp();
    const api = callerOf(createApi(mill, { log: recorder() }));
    await api("/api/queue/stats");
    const { body: text } = await api<string>("/metrics/prom");
    const there = typesOf(text);
    const used = new Set(rules.match(/\b(millrace|http|process)_[a-z_0-9]+/g));
    used.delete("millrace_"); // the comment about the prefix
    const missing = [...used].filter(
      (name) => !there.has(name) && !there.has(name.replace(/_(bucket|count|sum)$/, "")),
    );
    expect(missing).toEqual([]);
    expect(used.size).toBeGreaterThan(25);
  });
});
