/**
 * The API, for commands that work through it: that of a running `millrace up`, or one made here over the database, which listens
 * nowhere. So a command is written once, and its --json is the API's answer either way.
 */
import { defineApp } from "../app/app.ts";
import { readConfig } from "../app/config.ts";
import { millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import { silent } from "../core/log.ts";
import { createApi } from "../http/api.ts";
import { type Method, answerOf, ask, requestOf } from "./ask-api.ts";
import { hasData } from "./open-database.ts";
import { announcedApi } from "./running-api.ts";

export interface ApiDoor {
  ask<Answer>(method: Method, path: string, body?: object): Promise<Answer>;
  close(): Promise<void>;
}

/** Throws `DATABASE_*`, and `EMBEDDED_IN_USE` when the process that holds the data has no API. Never changes the schema. */
export async function openApi({ url }: { readonly url?: string | undefined }): Promise<ApiDoor> {
  if (url !== undefined) return overHttp(url);
  const config = readConfig(process.env);
  if (!hasData(config))
    throw new MillraceError(
      "DATABASE_BEHIND",
      `There is no database in ${config.dataDir} yet; \`millrace up\` makes one.`,
    );
  try {
    const mill = await millrace(defineApp({ tasks: [] }), { migrate: false, poolSize: 2 });
    const api = createApi(mill, { log: silent });
    // Whoever can reach the database may do what the API does: a request of this machine's own.
    const here = { incoming: { socket: { remoteAddress: "127.0.0.1" } } };
    return {
      async ask(method, path, body) {
        const init = requestOf(method, body);
        const headers = { ...(init.headers as Record<string, string> | undefined), Host: "localhost" };
        return answerOf(await api.request(path, { ...init, headers }, here), "The API");
      },
      close: () => mill.close(),
    };
  } catch (error) {
    const inUse = error instanceof MillraceError && error.code === "EMBEDDED_IN_USE";
    const running = inUse ? announcedApi(config) : undefined;
    if (running !== undefined) return overHttp(running);
    throw error;
  }
}

function overHttp(url: string): ApiDoor {
  return { ask: (method, path, body) => ask(url, path, body, method), async close() {} };
}
