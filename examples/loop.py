"""One iteration of RLoop from Python, on the bundled model: about a minute on one core."""

import reasonloop

task = reasonloop.load_task("countdown", numbers=[3, 3, 3, 4], max_number=12, train=2048, test=64)
policy = reasonloop.Policy.load("countdown")
base = reasonloop.evaluate(policy, task, max_tokens=34)
print("base     ", base)

explorer = policy.copy()  # RL only explores: its weights are dropped at the end
learner = reasonloop.Learner(explorer, learning_rate=3e-4)
seen = []
for step in range(30):
    groups = reasonloop.sample(explorer, task, task.batch(step, 32), group_size=8, max_tokens=34)
    measured = learner.rl_step(groups, objective="dapo")
    seen += groups
    if step % 10 == 0:
        print(f"step {step:2}   reward {measured['reward']:.3f}, entropy {measured['entropy']:.3f}")
print(groups[1])
print("after RL ", reasonloop.evaluate(explorer, task, max_tokens=34))

chosen = reasonloop.experts(seen, hard_threshold=0.9, cap=16)
print(chosen)
reasonloop.Learner(policy, learning_rate=1e-3).finetune(chosen, epochs=4)
after = reasonloop.evaluate(policy, task, max_tokens=34)
print("after RFT", after)
print("gained   ", after.compared_with(base)["avg@32"])
policy.save("runs/loop-model")
