/**
 * Standard output of a command that stays: lines that scroll, and, on a terminal, one line below them that changes in place. Where
 * nothing can change in place the status is a line like any other.
 */
import { paint } from "./print.ts";

export interface Terminal {
  /** Whether the status changes in place. */
  readonly inPlace: boolean;
  line(text: string): void;
  status(text: string): void;
  /** Takes the line that changes away again. */
  clear(): void;
}

export function openTerminal(stream: NodeJS.WriteStream): Terminal {
  if (!stream.isTTY) {
    const line = (text: string): void => void stream.write(`${text}\n`);
    return { inPlace: false, line, status: line, clear() {} };
  }
  let shown = "";
  const draw = (text: string): void => {
    // A status wider than the window would wrap, and then only its last row could be taken back.
    shown = text.slice(0, (stream.columns || 80) - 1);
    stream.write(shown === "" ? "" : `\r\x1b[2K${paint("dim", shown)}`);
  };
  const clear = (): void => {
    if (shown !== "") stream.write("\r\x1b[2K");
    shown = "";
  };
  return {
    inPlace: true,
    status: draw,
    clear,
    line(text) {
      const below = shown;
      clear();
      stream.write(`${text}\n`);
      draw(below);
    },
  };
}
