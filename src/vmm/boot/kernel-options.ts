/** Adds options to a kernel command line (Linux, Documentation/admin-guide/kernel-parameters.rst). */

/** `cmdline` with more options for the kernel. Those behind `--` are for init. */
export function withKernelOptions(cmdline: string, options: readonly string[]): string {
  if (options.length === 0) return cmdline;
  const end = cmdline.search(/(?<!\S)--(?!\S)/);
  const [forKernel, forInit] = end < 0 ? [cmdline, ''] : [cmdline.slice(0, end), cmdline.slice(end)];
  return [forKernel.trimEnd(), ...options, forInit].filter((part) => part !== '').join(' ');
}
