// SPDX-License-Identifier: Apache-2.0
import java.util.HashMap;

/** Threads, garbage, compiled code: a line for each step. */
public class Count {
	static final class Adder extends Thread {
		final long seed;
		long sum;

		Adder(long seed) {
			this.seed = seed;
		}

		@Override
		public void run() {
			HashMap<Long, long[]> map = new HashMap<Long, long[]>();
			for (long i = 0; i < 60000; i++) {
				long key = (seed + i) * 31 % 5000;
				long[] value = map.get(key);
				if (value == null)
					map.put(key, value = new long[50]);
				value[(int) (i % 50)] += i ^ seed;
				sum = sum * 6364136223846793005L + value[(int) (i % 50)];
			}
		}
	}

	public static void main(String[] args) throws Exception {
		long sum = 1;
		for (int step = 0; step < 40; step++) {
			Adder[] adders = new Adder[] { new Adder(sum), new Adder(sum + step), new Adder(step) };
			for (Adder adder : adders)
				adder.start();
			for (Adder adder : adders) {
				adder.join();
				sum = sum * 31 + adder.sum;
			}
			System.out.println(step + " " + Long.toHexString(sum));
			Thread.sleep(2);
		}
	}
}
