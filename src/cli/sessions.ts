/** `millrace sessions`: people who are signed in; one of them is ended. And `millrace whoami`. */
import type { Session } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { invalid, wordOption } from "./arguments.ts";
import { command } from "./command.ts";
import { facts, fromNow, oneLine, print, printJson, table } from "./print.ts";

export const sessions = command({
  meta: { name: "sessions", description: "List people who are signed in, or end a session" },
  args: {
    action: { type: "positional", required: false, valueHint: "end", description: "Left out: list them" },
    id: { type: "positional", required: false, description: "end: its id in the list" },
    ...doorArguments,
  },
  async run({ args }) {
    const { id } = args;
    const action = wordOption(args.action, "action", ["end"] as const);
    if (action === "end" && id === undefined)
      throw invalid("millrace sessions end: which one? `millrace sessions` lists them.");
    const door = await openApi(args);
    try {
      if (action === "end") {
        await door.ask("DELETE", `/api/sessions/${encodeURIComponent(id as string)}`);
        return args.json ? printJson({ id, ended: true }) : print(`Session ${id} is ended.`);
      }
      const { items } = await door.ask<{ items: Session[] }>("GET", "/api/sessions");
      if (args.json) printJson({ items });
      else print(items.length === 0 ? "Nobody is signed in." : tableOf(items));
    } finally {
      await door.close();
    }
  },
});

interface Who {
  readonly kind: string | null;
  readonly name: string | null;
  readonly email: string | null;
  readonly role: string | null;
  readonly expires_at: string | null;
}

export const whoami = command({
  meta: { name: "whoami", description: "Whom the API takes me for, and what I may do" },
  args: doorArguments,
  async run({ args }) {
    const door = await openApi(args);
    try {
      const who = await door.ask<Who>("GET", "/auth/session");
      if (args.json) return printJson(who);
      if (who.kind === null) return print("Nobody the API knows.");
      print(
        facts([
          ["kind", who.kind],
          ["name", who.name],
          ["email", who.email],
          ["role", who.role],
          ["until", who.expires_at],
        ]),
      );
    } finally {
      await door.close();
    }
  },
});

function tableOf(items: readonly Session[]): string {
  const now = Date.now();
  return table(
    ["id", "who", "role", "began", "last seen", "ends"],
    items.map((one) => [
      one.id,
      oneLine(one.email ?? one.name ?? one.sub, 60),
      one.role,
      fromNow(one.created_at, now),
      fromNow(one.last_seen_at, now),
      fromNow(one.expires_at, now),
    ]),
  );
}
