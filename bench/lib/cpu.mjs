/** CPU seconds of our processes and of the whole machine, read from /proc (Linux; elsewhere everything is null). */
import { readFileSync } from "node:fs";

const TICK = 1 / 100; // USER_HZ is 100 on every Linux that Node supports

/** utime, stime, cutime, cstime of a process, in seconds; zeroes when it is gone. */
function times(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return {
      own: (Number(fields[11]) + Number(fields[12])) * TICK,
      reaped: (Number(fields[13]) + Number(fields[14])) * TICK,
    };
  } catch {
    return { own: 0, reaped: 0 };
  }
}

function children(pid) {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim().split(" ").filter(Boolean);
  } catch {
    return [];
  }
}

/** A server with its living children, and the dead ones it has waited for. */
function family(pid) {
  if (!pid) return null;
  const living = children(pid).reduce((sum, child) => sum + times(child).own, 0);
  const head = times(pid);
  return living + head.own + head.reaped;
}

function machine() {
  const fields = readFileSync("/proc/stat", "latin1").split("\n", 1)[0].trim().split(/\s+/).slice(1).map(Number);
  const [user, nice, system, , , irq, softirq, steal] = fields;
  return { busy: (user + nice + system + irq + softirq) * TICK, steal: steal * TICK };
}

/**
 * @param {{ postgres?: number, redis?: number, workers: number[], producer?: number, api?: number, callers?: number }} pids
 * @returns CPU seconds so far; `null` for what cannot be seen (a server on another host, or no /proc)
 */
export function snapshot(pids) {
  if (process.platform !== "linux") return null;
  const own = process.cpuUsage();
  return {
    at: performance.now() / 1000,
    postgres: family(pids.postgres),
    redis: family(pids.redis),
    worker: pids.workers.reduce((sum, pid) => sum + times(pid).own, 0),
    producer: pids.producer ? times(pids.producer).own : 0,
    api: pids.api ? times(pids.api).own : 0,
    callers: pids.callers ? times(pids.callers).own : 0,
    harness: (own.user + own.system) / 1e6,
    ...machine(),
  };
}

/** CPU seconds between two snapshots. `others` is everybody who is not part of the benchmark. */
export function difference(before, after) {
  if (!before || !after) return null;
  const part = (name) => (before[name] === null || after[name] === null ? null : after[name] - before[name]);
  const names = ["postgres", "redis", "worker", "producer", "api", "callers", "harness", "steal"];
  const used = Object.fromEntries(names.map((name) => [name, part(name)]));
  const ours = names.filter((name) => name !== "steal").reduce((sum, name) => sum + used[name], 0);
  return { seconds: after.at - before.at, ...used, others: Math.max(0, part("busy") - ours) };
}

/** Several differences as one. */
export function together(differences) {
  if (differences.includes(null)) return null;
  const sum = (name) => differences.reduce((all, one) => (one[name] === null ? null : all + one[name]), 0);
  return Object.fromEntries(Object.keys(differences[0]).map((name) => [name, sum(name)]));
}

/**
 * @param {"postgres" | "redis"} server the contender's
 * @returns microseconds per job by kind of process; and how many cores others used, or the hypervisor kept, meanwhile
 */
export function perJob(cpu, jobs, server) {
  if (!cpu) return null;
  const micros = (value) => (value === null ? null : (value / jobs) * 1e6);
  const used = { server: micros(cpu[server]), worker: micros(cpu.worker), producer: micros(cpu.producer) };
  return { ...used, ...disturbance(cpu) };
}

/** Cores used by others, and stolen by the hypervisor, on average. */
export const disturbance = (cpu) => cpu && { others: cpu.others / cpu.seconds, steal: cpu.steal / cpu.seconds };

/** Resident memory of a process in MB. */
export function residentMegabytes(pid) {
  const line = readFileSync(`/proc/${pid}/status`, "latin1").match(/VmRSS:\s+(\d+) kB/);
  return Number(line[1]) / 1024;
}
