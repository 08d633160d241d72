/**
 * How other commands find the `up` that holds an embedded database: while it runs, it leaves its address in the data folder, and a token
 * that counts for this run only. Nobody but the folder's owner can read either.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../app/config.ts";

export interface RunningApi {
  readonly url: string;
  readonly token?: string | undefined;
}

const fileOf = ({ dataDir }: Config): string => join(dataDir, "api-url");

export function announceApi(config: Config, { url, token }: RunningApi): void {
  rmSync(fileOf(config), { force: true });
  writeFileSync(fileOf(config), `${url}\n${token}\n`, { mode: 0o600, flag: "wx" });
}

export function withdrawApi(config: Config): void {
  rmSync(fileOf(config), { force: true });
}

/** Undefined when none was announced. Only worth asking while somebody holds the data: a killed `up` leaves its address behind. */
export function announcedApi(config: Config): RunningApi | undefined {
  try {
    const [url = "", token] = readFileSync(fileOf(config), "utf8").trim().split("\n");
    return { url, token };
  } catch {
    return undefined; // nobody announced anything
  }
}
