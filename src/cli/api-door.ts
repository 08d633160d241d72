/**
 * The API, for commands that work through it: that of a running `millrace up`, or one made here over the database, which listens
 * nowhere. So a command is written once, and its --json is the API's answer either way.
 */
import type { Millrace } from "../app/millrace.ts";
import { silent } from "../core/log.ts";
import { createApi } from "../http/api.ts";
import { type Method, answerOf, ask, requestOf } from "./ask-api.ts";
import { type DoorOptions, openDoor } from "./door.ts";

export interface ApiDoor {
  ask<Answer>(method: Method, path: string, body?: object): Promise<Answer>;
  close(): Promise<void>;
}

export function openApi(options: DoorOptions): Promise<ApiDoor> {
  return openDoor(options, direct, (url) => ({
    ask: (method, path, body) => ask(url, path, body, method),
    async close() {},
  }));
}

function direct(mill: Millrace): ApiDoor {
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
}
