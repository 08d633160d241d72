/** Bull Board as people see it: its page in a headless browser. Skipped where there is no Chromium. */
import { accessSync, constants, mkdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, type Page, launch } from "puppeteer-core";
import { type Millrace, NonRetryableError, task } from "millrace";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createApi } from "../../src/http/api.ts";
import { type Serving, serve } from "../../src/http/server.ts";
import { useDatabase } from "../support/engine.ts";
import { recorder } from "../http/caller.ts";

const file = useDatabase();
const chromium = commandOf(["chromium", "chromium-browser", "google-chrome"]);
/** Where pictures of the pages go, for those who want to look at them. */
const pictures = process.env["BOARD_PICTURES"];

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
  browser = await launch({
    executablePath: chromium,
    args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US"],
  });
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
  await see(/billing.*FAILED\s*1\b.*1 Job/s);
  await see(/idle.*3 Jobs/s);

  await visit(`/admin/queues/queue/billing/${id}`, "failed");
  await see(/NonRetryableError: card was declined/);
  await see(/Failed at/);
  const text = await page.$eval("body", (body) => body.innerText);
  expect(text).not.toMatch(/NaN|Invalid Date|undefined|\[object/);

  declined = false;
  await press("main li button", "");
  await confirm();
  await vi.waitFor(async () => expect((await mill.job(id))?.status).toBe("completed"), 10_000);
  expect(await mill.result(id)).toBe("paid");
  await visit(`/admin/queues/queue/billing/${id}`, "retried");
  await see(/Finished at/);

  for (const [word, paused] of [
    ["Pause", true],
    ["Resume", false],
  ] as const) {
    await visit("/admin/queues/queue/billing", word);
    await press("main button[aria-haspopup=menu]", "");
    await press("[role=menuitem]", word);
    await confirm();
    await vi.waitFor(async () => expect(await mill.stats("billing")).toMatchObject([{ paused }]), 10_000);
  }
  expect(complaints).toEqual([]);
});

async function visit(path: string, name: string): Promise<void> {
  await page.goto(`${serving.urls[0] as string}${path}`, { waitUntil: "networkidle0" });
  if (pictures === undefined) return;
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: `${join(pictures, name)}.png` as const });
}

async function see(what: RegExp): Promise<void> {
  await vi.waitFor(async () => expect(await page.$eval("body", (body) => body.innerText)).toMatch(what), 10_000);
}

async function confirm(): Promise<void> {
  await press("[role=dialog] button, [role=alertdialog] button", "Confirm");
}

/** The first of these that can be seen and says so. */
async function press(selector: string, words: string): Promise<void> {
  await vi.waitFor(async () => {
    for (const one of await page.$$(selector)) {
      if (!(await one.isVisible()) || !(await one.evaluate((node) => node.textContent ?? "")).includes(words)) continue;
      await one.click();
      return;
    }
    throw new Error(`Nothing to press: ${selector} ${words}`);
  }, 10_000);
}

function commandOf(names: readonly string[]): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return names
    .flatMap((name) => folders.map((folder) => join(folder, name)))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false; // not here
      }
    });
}
