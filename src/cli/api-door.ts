/**
 * How commands reach what they are about: through the API of a running `millrace up`, while that holds the embedded database or
 * --url says so, else through one made here over the database, which listens nowhere. So a command is written once, and its --json
 * is the API's answer either way.
 */
import type { ArgsDef } from "citty";
import { defineApp } from "../app/app.ts";
import { readConfig } from "../app/config.ts";
import { type Millrace, millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { silent } from "../core/log.ts";
import { isTransient } from "../db/database.ts";
import { createApi } from "../http/api.ts";
import { type Method, answerOf, ask, reach, requestOf } from "./ask-api.ts";
import { everyCommand } from "./command.ts";
import { loadApp } from "./load-app.ts";
import { hasData } from "./open-database.ts";
import { profileOf, profilesFile } from "./profiles.ts";
import { type RunningApi, announcedApi } from "./running-api.ts";

export const doorArguments = {
  url: {
    type: "string",
    valueHint: "url",
    description: "Ask the API of a running `millrace up` there, such as http://127.0.0.1:3003, instead of the database",
  },
  token: {
    type: "string",
    description: "Who asks there; better in MILLRACE_TOKEN, where the list of processes does not show it",
  },
  profile: {
    type: "string",
    valueHint: "name",
    description: "The url and the token of this profile (`millrace profile`)",
  },
  ...everyCommand,
} as const satisfies ArgsDef;

interface DoorOptions {
  readonly url?: string | undefined;
  readonly token?: string | undefined;
  readonly profile?: string | undefined;
  /** App module, for its tasks. */
  readonly app?: string | undefined;
}

export interface ApiDoor {
  /** Throws what the API says. `extraMs`: what the answer may take beyond the usual. */
  ask<Answer>(method: Method, path: string, body?: object, extraMs?: number): Promise<Answer>;
  /** The answer to a GET that goes on until `signal`, as it comes; `place`: where to go on from. */
  follow(path: string, place: string | undefined, signal: AbortSignal): Promise<Response>;
  close(): Promise<void>;
}

/** Throws `DATABASE_*`, and `EMBEDDED_IN_USE` when the process that holds the data has no API. Never changes the schema. */
export async function openApi({ app, ...named }: DoorOptions): Promise<ApiDoor> {
  const remote = remoteApi(named, process.env);
  if (remote !== undefined) return overHttp(remote);
  const config = readConfig(process.env);
  if (!hasData(config)) {
    throw new MillraceError(
      "DATABASE_BEHIND",
      `There is no database in ${config.dataDir} yet; \`millrace up\` makes one.`,
    );
  }
  try {
    const tasks = app === undefined ? [] : (await loadApp(app)).app.tasks;
    return doorOf(await millrace(defineApp({ tasks }), { migrate: false, poolSize: 2 }));
  } catch (error) {
    const running = inUse(error) ? announcedApi(config) : undefined;
    if (running !== undefined) return overHttp(running);
    throw error;
  }
}

function inUse(error: unknown): boolean {
  return error instanceof MillraceError && error.code === "EMBEDDED_IN_USE";
}

/** The server that options or the environment name. A token goes nowhere but to the server it was given for. */
function remoteApi(
  { url, token, profile }: Omit<DoorOptions, "app">,
  env: Readonly<Record<string, string | undefined>>,
): RunningApi | undefined {
  const name = profile ?? (url === undefined ? env["MILLRACE_PROFILE"] : undefined);
  if (name !== undefined && name !== "") {
    if (url !== undefined) throw new MillraceError("OPTION_INVALID", "Give --url or --profile, not both.");
    const found = profileOf(profilesFile(env), name);
    return { url: found.url, token: token ?? found.token };
  }
  if (url !== undefined) return { url, token: token ?? env["MILLRACE_TOKEN"] };
  if (token === undefined) return undefined;
  throw new MillraceError("OPTION_INVALID", "--token is for a server: say which with --url or --profile.");
}

export function overHttp({ url, token }: RunningApi): ApiDoor {
  const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
  return {
    ask: (method, path, body, extraMs) => ask({ url, headers }, method, path, body, extraMs),
    follow: (path, place, signal) => reach(url, path, { headers: { ...headers, ...from(place) }, signal }),
    async close() {},
  };
}

/** Whoever can reach the database may do what the API does. */
export function doorOf(mill: Millrace): ApiDoor {
  const api = createApi(mill, { log: silent }).onError(asThrown);
  return {
    ask: async (method, path, body) =>
      answerOf(await api.request(path, requestOf(method, body), { inProcess: true }), "The API"),
    follow: async (path, place, signal) => api.request(path, { headers: from(place), signal }, { inProcess: true }),
    close: () => mill.close(),
  };
}

function from(place: string | undefined): Record<string, string> {
  return place === undefined ? {} : { "Last-Event-ID": place };
}

/** As a problem, an error that nobody expected would say nothing but where the log is; here there is none. */
function asThrown(error: Error): never {
  if (error instanceof MillraceError || !isTransient(error)) throw error;
  throw new MillraceError("DATABASE_UNREACHABLE", `The database does not answer any more: ${error.message}`, {
    cause: error,
  });
}
