/** `millrace doctor`: looks at everything Millrace stands on and says what to do about what is wrong. Changes nothing. */
import { type Finding, checkAll } from "./checks.ts";
import { command, everyCommand } from "./command.ts";
import { exitCodes } from "./exit-codes.ts";
import { paint, print, printJson } from "./print.ts";

export const doctor = command({
  meta: { name: "doctor", description: "Check database, schema, clock, disk and workers, and say what to do" },
  args: everyCommand,
  async run({ args }) {
    const findings = await checkAll(process.env);
    const exitCode = Math.max(...findings.map((finding) => finding.exitCode ?? exitCodes.ok));
    if (args.json) {
      const checks = findings.map(({ check, status, message, action }) => ({ check, status, message, action }));
      printJson({ ok: exitCode === exitCodes.ok, checks });
    } else for (const finding of findings) print(describe(finding));
    process.exitCode = exitCode;
  },
});

function describe({ check, status, message, action }: Finding): string {
  const mark = { ok: paint("green", "✓"), warn: paint("yellow", "!"), fail: paint("red", "✗") }[status];
  const indent = " ".repeat(14);
  return `${mark} ${check.padEnd(10)}  ${message}${action === undefined ? "" : `\n${indent}${action}`}`;
}
