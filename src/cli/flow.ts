/** `millrace flow <file>` and `millrace batch <file>`: jobs that wait for each other, from a file. */
import type { ArgsDef } from "citty";
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import type { EnqueuedBatch, EnqueuedFlow } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { invalid, readJson, signature, signatureArguments } from "./arguments.ts";
import { command } from "./command.ts";
import { counted, print, printJson, table } from "./print.ts";

const appArguments = {
  app: {
    type: "string",
    valueHint: "file",
    description: "App module whose tasks bring queue, attempts and input schema",
  },
  ...doorArguments,
} as const satisfies ArgsDef;

export const flow = command({
  meta: { name: "flow", description: "Enqueue jobs that wait for each other, all or none" },
  args: {
    file: {
      type: "positional",
      required: true,
      description: 'JSON: {"jobs":{"name":{"task","input","after":["other"],…}}}, or - for standard input',
    },
    by: signatureArguments.by,
    ...appArguments,
  },
  async run({ args }) {
    const asked = await contentOf(args.file, "A flow is an object with jobs by name.");
    const door = await openApi(args);
    try {
      const made = await door.ask<EnqueuedFlow>("POST", "/flows", { ...signature(args), ...asked });
      if (args.json) printJson(made);
      else print(table(["job", "id"], Object.entries(made.jobs)));
    } finally {
      await door.close();
    }
  },
});

export const batch = command({
  meta: { name: "batch", description: "Enqueue many jobs of one task, and a last one that runs when all have ended" },
  args: {
    file: {
      type: "positional",
      required: true,
      description: 'JSON: {"task","inputs":[…],"callback":{"task","input"},…}, or - for standard input',
    },
    by: signatureArguments.by,
    ...appArguments,
  },
  async run({ args }) {
    const asked = await contentOf(args.file, "A batch is an object with task, inputs and callback.");
    const door = await openApi(args);
    try {
      const made = await door.ask<EnqueuedBatch>("POST", "/batches", { ...signature(args), ...asked });
      if (args.json) printJson(made);
      else print(`Enqueued ${counted(made.ids.length, "job")}; ${made.callback} runs when they have ended.`);
    } finally {
      await door.close();
    }
  },
});

/** The JSON object in a file, or on standard input. */
async function contentOf(file: string, expected: string): Promise<object> {
  const given = readJson(
    file === "-" ? await text(process.stdin) : await read(file),
    file === "-" ? "The input" : file,
  );
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return given;
  throw invalid(expected);
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw invalid(`Cannot read ${path}: ${(error as Error).message}.`);
  }
}
