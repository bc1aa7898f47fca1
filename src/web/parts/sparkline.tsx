/** The processor use of a machine over the last two minutes. */
const WIDTH = 110;
const HEIGHT = 20;
const SAMPLES = 60;

export function Sparkline({ samples, cpus }: { samples: readonly number[]; cpus: number }) {
  const step = WIDTH / (SAMPLES - 1);
  const from = SAMPLES - samples.length;
  const points = samples.map((used, i) => {
    const y = HEIGHT - 1 - Math.min(1, used / cpus) * (HEIGHT - 2);
    return `${((from + i) * step).toFixed(1)},${y.toFixed(1)}`;
  });
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {points.length > 1 && <path d={`M${points.join('L')}`} />}
    </svg>
  );
}
