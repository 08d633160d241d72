/** Bull Board as people see it: its page in a headless browser. Skipped where there is no Chromium. */
import type { Browser, Page } from "puppeteer-core";
import { type Millrace, NonRetryableError, task } from "millrace";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createApi } from "../../src/http/api.ts";
import { type Serving, serve } from "../../src/http/server.ts";
import { chromium, confirm, openChromium, picture, press, see } from "../support/chromium.ts";
import { useDatabase } from "../support/engine.ts";
import { recorder } from "../http/caller.ts";

const file = useDatabase();

let declined = true;
const charge = task({
  name: "charge",
  queue: "billing",
  run() {
    if (declined) throw new NonRetryableError("card was declined");
    return "paid";
  },
});

let mill: Millrace;
let serving: Serving;
let browser: Browser;
let page: Page;
/** What the browser complained about: policies, scripts, answers that were not there. */
const complaints: string[] = [];

beforeAll(async () => {
  if (chromium === undefined) return;
  mill = await file.open([charge]);
  const log = recorder();
  serving = await serve(createApi(mill, { log, trustMachine: true }), { host: "127.0.0.1", ports: [0], log });
  browser = await openChromium(chromium);
  page = await browser.newPage();
  page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(serving.urls[0] as string)) complaints.push(`asked for ${request.url()}`);
  });
});
afterAll(async () => {
  await browser?.close();
  await serving?.close(0);
  await mill?.close();
});

test("queues with their counts, a failed job with its error, its retry, and a queue's pause", async (context) => {
  if (chromium === undefined) return context.skip("there is no chromium on the PATH");
  mill.work();
  const { id } = await mill.enqueue(charge, { order: 7 } as never);
  await expect(mill.waitUntilFinished(id)).rejects.toThrow("card was declined");
  await mill.enqueueMany("other", [1, 2, 3], { queue: "idle" });

  await visit("/admin/queues", "queues");
  await see(page, /billing.*FAILED\s*1\b.*1 Job/s);
  await see(page, /idle.*3 Jobs/s);

  await visit(`/admin/queues/queue/billing/${id}`, "failed");
  await see(page, /NonRetryableError: card was declined/);
  await see(page, /Failed at/);
  const text = await page.$eval("body", (body) => body.innerText);
  expect(text).not.toMatch(/NaN|Invalid Date|undefined|\[object/);

  declined = false;
  await press(page, "main li button", "");
  await confirm(page);
  await vi.waitFor(async () => expect((await mill.job(id))?.status).toBe("completed"), 10_000);
  expect(await mill.result(id)).toBe("paid");
  await visit(`/admin/queues/queue/billing/${id}`, "retried");
  await see(page, /Finished at/);

  for (const [word, paused] of [
    ["Pause", true],
    ["Resume", false],
  ] as const) {
    await visit("/admin/queues/queue/billing", word);
    await press(page, "main button[aria-haspopup=menu]", "");
    await press(page, "[role=menuitem]", word);
    await confirm(page);
    await vi.waitFor(async () => expect(await mill.stats("billing")).toMatchObject([{ paused }]), 10_000);
  }
  expect(complaints).toEqual([]);
});

async function visit(path: string, name: string): Promise<void> {
  await page.goto(`${serving.urls[0] as string}${path}`, { waitUntil: "networkidle0" });
  await picture(page, name);
}
