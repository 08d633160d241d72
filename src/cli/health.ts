/** `millrace health`: how a server says it is; exit code 1 when that is not well. */
import type { Health, Ready } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { command } from "./command.ts";
import { facts, print, printJson } from "./print.ts";

export const health = command({
  meta: { name: "health", description: "How database, workers and schedulers are; exit code 1 when not well" },
  args: {
    ready: { type: "boolean", description: "Whether it is fit for work instead: database, migrations, disk" },
    ...doorArguments,
  },
  async run({ args }) {
    const door = await openApi(args);
    try {
      // Strangers are told the status alone.
      const found = args.ready
        ? await door.ask<Partial<Ready> & { status: string }>("GET", "/readyz")
        : await door.ask<Partial<Health> & { status: string }>("GET", "/health");
      if (found.status !== "ok") process.exitCode = 1;
      if (args.json) return printJson(found);
      const parts: Readonly<Record<string, Part>> =
        "checks" in found ? (found.checks ?? {}) : "services" in found ? (found.services ?? {}) : {};
      print(
        facts([
          ["status", found.status],
          ...Object.entries(parts).map(([name, part]) => [name, wordsOf(part)] as const),
        ]),
      );
    } finally {
      await door.close();
    }
  },
});

interface Part {
  readonly ok: boolean;
  readonly detail?: string;
  readonly reason?: string;
}

function wordsOf({ ok, detail, reason }: Part): string {
  return `${ok ? "ok" : "not ok"}${(detail ?? reason) === undefined ? "" : `: ${detail ?? reason}`}`;
}
