"""How pleased or displeased words sound: text → a score from -1 to 1. Pure, from a small own lexicon.

The lexicon was written by hand for calls to a bank: what customers say when they are annoyed, let down,
afraid, relieved or grateful, and what agents answer. Each entry has a weight from -4 (abuse) to 4; words
of weight 0 are there to be recognised as something else (麻烦您, 差不多, 好久). Four things are understood:

* **the longest word wins**, at one place in the text: 不满意 is an entry, not 不 and 满意;
* **a negation** right before (不, 没有, 并非 …) turns a word round: what is not good is nearly bad, what
  is not bad is hardly good;
* **a degree word** before (太, 非常, 有点) or behind (极了, 死了) makes it stronger or weaker, and after a
  negation takes from it: 不太满意 is milder than 不满意;
* **a pause** ends all of that: 不，满意 is no negation.

The score is ``s / sqrt(s² + 6)`` of the sum ``s``: one word of weight 1 gives 0.38, one of 2 gives 0.63,
and however much is said it stays within -1 to 1. Irony is not understood.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

import ahocorasick

from detectors.mandarin import Normal, normalise

_ALPHA: Final = 6.0
_NOT_GOOD: Final = -0.9
_NOT_BAD: Final = -0.3
"""What a negation makes of a word."""
_REACH: Final = 2
"""Characters between a negation or a degree word and what it belongs to."""
_MODIFIERS: Final = 3
"""Before one word; more than that are a stutter."""

_WORDS: Final = {
    -4.0: """
        傻逼 傻b 煞笔 沙比 操你 草你 他妈的 你妈的 妈的 去你妈 去死 滚蛋 滚开 王八蛋 混蛋 畜生 狗屁 放屁
        黑心银行 不要脸 臭不要脸 缺德 丧尽天良 狗东西 什么玩意 神经病 脑子有病 脑残 白痴 蠢货 废物 人渣
        强盗 吃人不吐骨头 想死 不想活 活不下去 走投无路
    """,
    -3.0: """
        气死 气死我了 气炸 火大 忍无可忍 受够了 受不了 欺人太甚 太欺负人 欺负人 欺负老百姓 恶心 恶劣
        态度恶劣 垃圾 太差 差劲 烂透 坑人 坑爹 坑钱 黑心 骗子 骗人 骗钱 欺骗 欺诈 诈骗 忽悠 霸王条款
        店大欺客 太过分 过分 无耻 可恶 可恨 荒唐 离谱 岂有此理 莫名其妙 不可理喻 愤怒 生气 恼火 窝火 憋屈
        崩溃 绝望 心寒 寒心 令人发指 没良心 不负责任 一点责任心都没有 投诉你 投诉你们 我要投诉 曝光你
        曝光你们 告你们 起诉你们 没完 跟你没完 跟你们没完 什么破 破银行 破服务 再也不用 再也不来 后悔死
        血汗钱 倾家荡产 被骗 被坑 被盗刷 盗刷 上当 耍我 耍人 玩我 糊弄 糊弄我 蒙我 坑我 糟糕透 糟透
        一塌糊涂 忍不了 气人 不讲理 蛮不讲理 流氓 无赖 垃圾服务
    """,
    -2.0: """
        不满意 不满 不爽 不高兴 不开心 不像话 不合理 不公平 不靠谱 不专业 不负责 不耐烦 不作为 不讲信用
        不守信用 不尊重 不可信 不理人 失望 失望透顶 糟糕 糟心 烦死 烦人 很烦 真烦 太烦 好烦 烦躁 郁闷 无语
        服了 真服了 冤枉 委屈 难受 难过 痛苦 伤心 害怕 担惊受怕 吓人 吓死 着急 急死 焦虑 担心死 推卸
        推卸责任 推来推去 踢皮球 推诿 敷衍 拖延 拖着 一拖再拖 拖了 没人管 没人理 没人处理 没人负责 没有人管
        没有用 没用 毫无用处 白跑 白等 白打 浪费时间 浪费 效率低 效率太低 太慢 慢死 慢得要命 等了半天
        等半天 等不起 拖死 差评 曝光 起诉 举报 后悔 亏死 亏惨 亏了 亏大 赔惨 损失惨重 乱扣 乱收费 乱扣费
        多扣 无缘无故 凭什么 有病 搞什么 什么态度 什么服务 服务差 服务很差 很差 真差 够差 态度差 态度不好
        态度很差 质量差 难用 太难用 太黑 太贵 贵死 骚扰 老是骚扰 天天打 烦不烦 有完没完 烂 太烂 真烂
        说话不算话 说话不算数 言而无信 前后矛盾 自相矛盾 一问三不知 推脱 狡辩 骗我 骗了 欺负 气愤 心烦 头疼
        头痛 火冒三丈 倒霉 真是服了 不想再 别再打 别打了 别烦我 少来 少废话 废话 胡说 胡扯 瞎说 扯淡 鬼话
        可笑 笑话 讽刺 不要再打 垃圾银行 别打扰我 不要打扰我
    """,
    -1.0: """
        麻烦 复杂 担心 不放心 怀疑 疑惑 糊涂 搞不懂 搞不清 搞错 弄错 出错 错误 故障 失败 打不开 登不上
        用不了 进不去 收不到 没收到 没到账 不到账 没反应 卡住 卡死 失灵 不稳定 慢 太久 很久 好久 等很久
        还没 还没解决 还没处理 还没到账 还没收到 还没好 还没给 还没退 还没弄 怎么还 怎么还没 怎么还不
        一直没 为什么还 总是 老是 可惜 遗憾 困难 紧张 压力 很急 有点急 吃亏 不划算 不值 贵 亏 亏损 赔钱
        不方便 不清楚 不理解 不明白 不认可 不接受 不同意 不愿意 不想要 不行 不好 不好用 不太好 解决不了
        没解决 没有解决 没处理 不处理 不解决 没给 不给 拒绝 尴尬 难办 没办法 怎么回事 怎么搞的 怎么办 到底
        有问题 出问题 问题很大 扣了 被扣 多收 逾期 催收 误会 打错 投诉
    """,
    1.0: """
        谢谢 谢谢您 谢谢你 谢了 感谢 多谢 辛苦 辛苦了 您辛苦 麻烦您了 麻烦你了 不错 还不错 挺好 挺好的 还行
        清楚了 明白了 知道了谢谢 理解 能理解 没问题 没关系 没事 没事的 放心 放心了 安心 认可 信任 相信你
        相信你们 相信您 及时 顺利 解决了 处理好了 搞定 搞定了 到账了 收到了谢谢 挺快 很快 划算 值得 合适
        合理 喜欢 有礼貌 客气 耐心 细心 仔细 周到 专业 负责 热心 热情 礼貌
    """,
    2.0: """
        满意 很好 真好 真不错 很不错 太好了 太好 好极了 好评 点赞 表扬 很专业 真专业 很耐心 真耐心 高兴
        开心 愉快 舒服 温暖 贴心 佩服 靠谱 真靠谱 优秀 帮了大忙 帮大忙 太方便 真方便 太快了 非常感谢 太感谢
        感激 真心感谢 衷心感谢 由衷感谢 服务好 服务真好 服务很好 态度好 态度真好 态度很好 解释得很清楚
        讲得很清楚 说得很清楚 信得过 放一百个心 松了一口气 惊喜
    """,
    3.0: """
        非常满意 特别满意 十分满意 太满意 感激不尽 万分感谢 感动 太感动 完美 太棒 太棒了 真棒 很棒 棒极了
        最好的 五星好评 给你们点赞 给您点赞 送锦旗 送面锦旗 救命恩人 救了我
    """,
    0.0: """
        麻烦您 麻烦你 麻烦帮 麻烦问 麻烦给 麻烦把 麻烦再 麻烦查 麻烦请 不麻烦 不好意思 不客气 差不多 不得不
        要不要 是不是 有没有 能不能 会不会 可不可以 好不好 行不行 对不对 需不需要 满不满意 满意度
        满意不满意 是否满意 不满意请按 非常满意请按 满意请按 您是否 不方便的话 担心的话 不用担心 请您放心
        请放心 不必担心 您放心 慢慢 快慢 不慢 紧急联系人 紧急 贵姓 贵行 贵宾 贵公司 贵州 贵金属 请稍等
        亏损风险 风险承受 压力测试 投诉电话 投诉热线 投诉渠道 投诉建议 投诉部门 投诉处理 投诉编号 防诈骗
        反诈骗 谨防诈骗 诈骗电话 诈骗分子 防骗 反欺诈 逾期利息 逾期费 祝您生活愉快 祝您愉快 生活愉快
        祝您工作顺利 意外险 拒绝推销 失败原因 错误代码 信任度 专业术语 专业人员 专业版 客气了 您客气 亏钱吗
        会亏吗 不会亏 不亏 不贵 不着急 别着急 不用着急 不担心 没担心 打扰您 打扰了 垃圾短信 垃圾邮件 垃圾箱
        别生气 不要生气 您消消气 满意吗 怎么避免 负责人 好久不见 黑名单 还没有开
    """,
}
_NEGATIONS: Final = """
    不 没 没有 未 非 并非 并不 并没有 不是 不算 不够 不太 不怎么 没那么 没什么 从不 从没 从来不 从来没 绝不
    毫不 毫无 谈不上 算不上 哪里 不会 不能 不觉得 没觉得 不是很 不是太 一点不 一点也不 一点都不 完全不
    根本不
"""
_DEGREES: Final = {
    1.6: "非常 特别 极其 极为 超级 相当 太 最 十分 万分 无比 简直 实在 实在是 实在太 完全 彻底 真他妈 尤其",
    1.3: "很 真 真的 真是 好 挺 确实 多么 这么 那么 越来越 更 更加 又",
    0.6: "有点 有点儿 有些 稍微 略 略微 还算 比较 多少有点 不太 不是很 不是太 不怎么 没那么 不算 不够",
}
_BEHIND: Final = {
    1.5: "死了 极了 透了 透顶 得很 得要命 得要死 得不得了 坏了 至极 到极点",
}


class Witness(NamedTuple):
    """A word that says something about how the speaker feels. Ranges are of the normalised text."""

    start: int
    """Of the word with what strengthens or turns it."""
    end: int
    weight: float


class _Entry(NamedTuple):
    length: int
    weight: float | None
    """``None``: it is no word but belongs to one."""
    negates: bool
    before: float | None
    """What it does to a word behind it; ``None``: nothing."""
    behind: float | None


def _lexicon() -> ahocorasick.Automaton:
    weights = {
        normalise(word).text: weight
        # A word of weight 0 is there to hide another; it must win over the same word elsewhere.
        for weight, words in sorted(_WORDS.items(), key=lambda item: item[0] == 0.0)
        for word in words.split()
    }
    negations = {normalise(word).text for word in _NEGATIONS.split()}
    before = {normalise(word).text: f for f, words in _DEGREES.items() for word in words.split()}
    behind = {normalise(word).text: f for f, words in _BEHIND.items() for word in words.split()}
    automaton = ahocorasick.Automaton()
    for text in {*weights, *negations, *before, *behind}:
        if text:
            entry = _Entry(
                len(text), weights.get(text), text in negations, before.get(text), behind.get(text)
            )
            automaton.add_word(text, entry)
    automaton.make_automaton()
    return automaton


_AUTOMATON: Final = _lexicon()


def witnesses(normal: Normal) -> tuple[Witness, ...]:
    """The words that count, in their order; none overlap. Linear in the text's length."""
    found: list[Witness] = []
    edges = (0, *normal.breaks, len(normal.text))
    for begin, end in pairwise(edges):
        if begin < end:
            found += _clause(normal.text, begin, end)
    return tuple(found)


def _clause(text: str, begin: int, stop: int) -> list[Witness]:
    found: list[Witness] = []
    pending: list[tuple[int, int, _Entry]] = []
    for last, entry in _AUTOMATON.iter_long(text, begin, stop):
        start, end = last + 1 - entry.length, last + 1
        if pending and start - pending[-1][1] > _REACH:
            pending.clear()
        if entry.weight is None:
            if entry.behind is not None and found and start - found[-1].end <= _REACH:
                word = found[-1]
                found[-1] = Witness(word.start, end, word.weight * entry.behind)
            elif entry.negates or entry.before is not None:
                pending = [*pending, (start, end, entry)][-_MODIFIERS:]
            continue
        if entry.weight:
            weight = entry.weight
            for _, _, modifier in reversed(pending):
                weight *= modifier.before or 1.0
                if modifier.negates:
                    weight *= _NOT_GOOD if weight > 0 else _NOT_BAD
            found.append(Witness(pending[0][0] if pending else start, end, weight))
        pending.clear()
    return found


def score(found: Iterable[Witness]) -> float:
    """-1 (as displeased as can be said) to 1; 0 where no word says anything."""
    total = math.fsum(witness.weight for witness in found)
    return round(total / math.sqrt(total * total + _ALPHA), 3)


def polarity(text: str) -> float:
    """The score of a text as it was written; see ``score``."""
    return score(witnesses(normalise(text)))
