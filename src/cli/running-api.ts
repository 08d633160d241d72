/** How other commands find the `up` that holds an embedded database: it leaves its address in the data folder while it runs. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../app/config.ts";

const fileOf = ({ dataDir }: Config): string => join(dataDir, "api-url");

export function announceApi(config: Config, url: string): void {
  writeFileSync(fileOf(config), `${url}\n`);
}

export function withdrawApi(config: Config): void {
  rmSync(fileOf(config), { force: true });
}

/** Undefined when none was announced. Only worth asking while somebody holds the data: a killed `up` leaves its address behind. */
export function announcedApi(config: Config): string | undefined {
  try {
    return readFileSync(fileOf(config), "utf8").trim();
  } catch {
    return undefined; // nobody announced anything
  }
}
