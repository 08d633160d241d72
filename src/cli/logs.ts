/** `millrace logs <id>`: what a job's task has said, and, with --follow, what it says until the job has ended. */
import { setTimeout as pause } from "node:timers/promises";
import type { JobDetail, Logs } from "../client/index.ts";
import { type ApiDoor, doorArguments, openApi } from "./api-door.ts";
import { jobId } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { oneLine, paint, print, printJson } from "./print.ts";

type Line = Logs["items"][number];

const lookEveryMs = 500;
const pageSize = 1_000;
/** Longest line on a terminal: message and fields have 2 000 characters together. */
const longest = 2_100;
const ends: ReadonlySet<string> = new Set(["completed", "failed", "cancelled"]);

export const logs = command({
  meta: { name: "logs", description: "Show what a job's task has logged" },
  args: {
    id: { type: "positional", required: true, description: "Its id" },
    follow: { type: "boolean", description: "Stay until the job has ended, and show each line as it comes" },
    ...doorArguments,
  },
  async run({ args }) {
    const id = jobId(args.id);
    const door = await openApi(args);
    try {
      if (args.follow) await follow(door, id, args.json ? printJson : printLine);
      else {
        const items = await linesAfter(door, id, 0);
        if (args.json) return printJson({ items, next: null });
        if (items.length === 0) print("No lines.");
        items.forEach(printLine);
      }
    } finally {
      await door.close();
    }
  },
});

async function follow(door: ApiDoor, id: string, show: (line: Line) => void): Promise<void> {
  for (let after = 0; ; await pause(lookEveryMs)) {
    // Asked first: what was said before the end is there by then.
    const { status } = await door.ask<JobDetail>("GET", `/jobs/${id}`);
    const over = ends.has(status);
    const lines = await linesAfter(door, id, after);
    // The last line may be a count of what is not kept, which goes on growing.
    if (!over && lines.at(-1)?.missed) lines.pop();
    lines.forEach(show);
    after = lines.at(-1)?.n ?? after;
    if (over) return;
  }
}

async function linesAfter(door: ApiDoor, id: string, after: number): Promise<Line[]> {
  const lines: Line[] = [];
  for (let next: number | null = after; next !== null;) {
    const page: Logs = await door.ask<Logs>("GET", withQuery(`/jobs/${id}/logs`, { after: next, limit: pageSize }));
    lines.push(...page.items);
    ({ next } = page);
  }
  return lines;
}

const colours = { info: "reset", warn: "yellow", error: "red" } as const;

function printLine({ at, level, message, fields }: Line): void {
  const time = paint("dim", new Date(at).toISOString());
  const details = fields === null ? "" : paint("dim", ` ${oneLine(JSON.stringify(fields), longest)}`);
  print(`${time}  ${paint(colours[level], level.padEnd(5))}  ${oneLine(message, longest)}${details}`);
}
