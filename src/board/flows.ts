/** The tree of a flow, as Bull Board draws it: a job, and below it the jobs it waits for. */
import type { Millrace } from "../app/millrace.ts";
import { listDependencies } from "../jobs/dependencies-store.ts";
import { type BoardJob, boardJobs } from "./job.ts";

interface FlowTree {
  readonly job: BoardJob;
  readonly children: FlowTree[];
}

export interface FlowReader {
  getFlow(wanted: { id: string; depth: number; maxChildren: number }): Promise<FlowTree | undefined>;
}

/** Jobs in one tree: where several wait for the same job, each has it below itself. */
const nodesMax = 200;

export function flowReader(mill: Millrace): FlowReader {
  return {
    async getFlow({ id, depth, maxChildren }) {
      let left = nodesMax;
      const below = async (job: BoardJob, levels: number): Promise<FlowTree> => {
        const children: FlowTree[] = [];
        const room = Math.min(maxChildren, left);
        if (levels > 1 && room > 0) {
          const needs = await listDependencies(mill.db, job.id, room, 0);
          const jobs = await boardJobs(
            mill,
            needs.map((one) => one.id),
          );
          left -= jobs.length;
          for (const one of jobs) children.push(await below(one, levels - 1));
        }
        return { job, children };
      };
      const [root] = await boardJobs(mill, [id]);
      return root && below(root, depth);
    },
  };
}
