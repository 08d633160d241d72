/** `millrace flow <file>`: jobs that wait for each other, from a file. */
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import type { EnqueuedFlow } from "../flows/flow.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { invalid, readJson, signature, signatureArguments } from "./arguments.ts";
import { command } from "./command.ts";
import { print, printJson, table } from "./print.ts";

export const flow = command({
  meta: { name: "flow", description: "Enqueue jobs that wait for each other, all or none" },
  args: {
    file: {
      type: "positional",
      required: true,
      description: 'JSON: {"jobs":{"name":{"task","input","after":["other"],…}}}, or - for standard input',
    },
    by: signatureArguments.by,
    app: {
      type: "string",
      valueHint: "file",
      description: "App module whose tasks bring queue, attempts and input schema",
    },
    ...doorArguments,
  },
  async run({ args }) {
    const source = args.file === "-" ? await text(process.stdin) : await contentOf(args.file);
    const given = readJson(source, args.file === "-" ? "The flow" : args.file);
    if (typeof given !== "object" || given === null) throw invalid("A flow is an object with jobs by name.");
    const door = await openApi(args);
    try {
      const made = await door.ask<EnqueuedFlow>("POST", "/flows", { ...signature(args), ...given });
      if (args.json) printJson(made);
      else print(table(["job", "id"], Object.entries(made.jobs)));
    } finally {
      await door.close();
    }
  },
});

async function contentOf(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw invalid(`Cannot read ${path}: ${(error as Error).message}.`);
  }
}
