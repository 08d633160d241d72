/**
 * How commands reach what they are about: straight through the database, or, while an `up` holds the embedded one or --url says so,
 * through its API.
 */
import type { ArgsDef } from "citty";
import { defineApp } from "../app/app.ts";
import { readConfig } from "../app/config.ts";
import { type Millrace, millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { everyCommand } from "./command.ts";
import { loadApp } from "./load-app.ts";
import { hasData } from "./open-database.ts";
import { announcedApi } from "./running-api.ts";

/** Times are Dates here and texts when they came over HTTP. */
export type Wire<Item> = Item extends Date
  ? Date | string
  : Item extends readonly (infer Each)[]
    ? readonly Wire<Each>[]
    : Item extends object
      ? { readonly [Key in keyof Item]: Wire<Item[Key]> }
      : Item;
export const doorArguments = {
  url: {
    type: "string",
    valueHint: "url",
    description: "Ask the API of a running `millrace up` there, such as http://127.0.0.1:3003, instead of the database",
  },
  ...everyCommand,
} as const satisfies ArgsDef;

export interface DoorOptions {
  readonly url?: string | undefined;
  /** App module, for its tasks. */
  readonly app?: string | undefined;
}

/** Throws `DATABASE_*`, and `EMBEDDED_IN_USE` when the process that holds the data has no API. Never changes the schema. */
export async function openDoor<Door>(
  { url, app }: DoorOptions,
  direct: (mill: Millrace) => Door,
  overHttp: (url: string) => Door,
): Promise<Door> {
  if (url !== undefined) return overHttp(url);
  const config = readConfig(process.env);
  if (!hasData(config)) {
    throw new MillraceError(
      "DATABASE_BEHIND",
      `There is no database in ${config.dataDir} yet; \`millrace up\` makes one.`,
    );
  }
  try {
    const tasks = app === undefined ? [] : (await loadApp(app)).app.tasks;
    return direct(await millrace(defineApp({ tasks }), { migrate: false, poolSize: 2 }));
  } catch (error) {
    const running = inUse(error) ? announcedApi(config) : undefined;
    if (running !== undefined) return overHttp(running);
    throw error;
  }
}

function inUse(error: unknown): boolean {
  return error instanceof MillraceError && error.code === "EMBEDDED_IN_USE";
}
