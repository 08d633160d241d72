/** Columns that several tables share. `value` gives one number per run; the report shows the median of the rounds. */
export const rate = { title: "jobs/s", value: (metrics) => metrics.rate };
export const cpuServer = { title: "CPU server µs/job", value: (metrics) => metrics.cpu?.server };
export const cpuWorker = { title: "CPU worker µs/job", value: (metrics) => metrics.cpu?.worker };
export const cpuProducer = { title: "CPU producer µs/job", value: (metrics) => metrics.cpu?.producer };
export const others = { title: "others, cores", value: (metrics) => metrics.cpu?.others };
