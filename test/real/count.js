// SPDX-License-Identifier: Apache-2.0
// Promises, timers, a worker thread, a file: a line for each step.
'use strict';
const { Worker, isMainThread, parentPort } = require('worker_threads');
const fs = require('fs');
const { createHash } = require('crypto');

if (!isMainThread) {
	parentPort.on('message', (text) => {
		let hash = text;
		for (let i = 0; i < 2000; i++)
			hash = createHash('sha256').update(hash).digest('hex');
		parentPort.postMessage(hash);
	});
} else {
	const worker = new Worker(__filename);
	const ask = (text) => new Promise((resolve) => {
		worker.once('message', resolve);
		worker.postMessage(text);
	});
	const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

	(async () => {
		let text = 'begin';
		for (let step = 0; step < 40; step++) {
			const table = new Map();
			for (let i = 0; i < 20000; i++)
				table.set('key' + i, i * step);
			let sum = 0;
			for (const value of table.values())
				sum += value;
			const [hash] = await Promise.all([ask(text + sum), sleep(5)]);
			text = hash;
			const own = await fs.promises.readFile(__filename);
			fs.writeSync(1, `${step} ${hash} ${own.length}\n`);
		}
		await worker.terminate();
	})();
}
