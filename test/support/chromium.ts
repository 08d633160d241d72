/** A headless Chromium, where there is one, and what tests do in it. */
import { accessSync, constants, mkdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, type Page, launch } from "puppeteer-core";
import { expect, vi } from "vitest";

export const chromium = commandOf(["chromium", "chromium-browser", "google-chrome"]);

export const openChromium = (executablePath: string): Promise<Browser> =>
  launch({
    executablePath,
    args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US"],
  });

/** Where pictures of the pages go, for those who want to look at them. */
const pictures = process.env["BOARD_PICTURES"];

export async function picture(page: Page, name: string): Promise<void> {
  if (pictures === undefined) return;
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: `${join(pictures, name)}.png` as const });
}

export async function see(page: Page, what: RegExp): Promise<void> {
  await vi.waitFor(async () => expect(await page.$eval("body", (body) => body.innerText)).toMatch(what), 10_000);
}

/** The first of these that can be seen and says so. */
export async function press(page: Page, selector: string, words: string): Promise<void> {
  await vi.waitFor(async () => {
    for (const one of await page.$$(selector)) {
      if (!(await one.isVisible()) || !(await one.evaluate((node) => node.textContent ?? "")).includes(words)) continue;
      await one.click();
      return;
    }
    throw new Error(`Nothing to press: ${selector} ${words}`);
  }, 10_000);
}

/** Something of Bull Board's that it asks back about. */
export const confirm = (page: Page): Promise<void> =>
  press(page, "[role=dialog] button, [role=alertdialog] button", "Confirm");

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
