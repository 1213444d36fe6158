"""Phrases and sentences as a bank's rules and calls hold them, made from common words; seeded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from detectors.rules.lexicon import GAP


def _words(listed: str) -> list[str]:
    return listed.split()


_WHO: Final = _words("您 我 我们 咱们 客户 你们 他们 我行 本行 经理 公司 银行 老师 家里人 平台 客服")
_HOW: Final = _words(
    """
    一定 绝对 肯定 可以 马上 立刻 现在 今天 从来 已经 直接 全部 随时 每年 每个月 永远 完全
    私下 单独 提前 免费 保证 尽快 千万 帮您 给您 替您 没有 不用 必须 只要 都能 还能 稳稳
    """
)
_DO: Final = _words(
    """
    购买 赎回 转账 办理 提供 告诉 透露 投资 借款 贷款 还款 理财 开户 销户 提现 存款 取款
    投诉 举报 起诉 曝光 核实 验证 授权 签字 确认 取消 推荐 承诺 保障 赔偿 退款 冻结 解冻
    挂失 补办 升级 查询 修改 打到 汇到 填写 下载 安装 登录 扫码 抵押 担保 追加 加仓 满仓
    抄底 翻倍 到账 扣款 催收 上报 隐瞒 伪造 欺骗 辱骂 退保
    """
)
_WHAT: Final = _words(
    """
    保本产品 理财产品 信用卡 储蓄卡 银行卡 验证码 密码 身份证 手机号码 家庭住址 账户余额 定期存款
    大额存单 基金 股票 保险 黄金 外汇 期货 信托 国债 利息 本金 收益 利率 年化收益 手续费
    违约金 额度 征信 逾期记录 房贷 车贷 网贷 个人账户 私人账户 安全账户 监管部门 消费者协会
    金融监管局 人民银行 新闻媒体 律师 法院 派出所 领导 主管 投诉电话 内部名额 优惠活动 礼品 返现
    佣金 合同 风险提示 双录视频 流水证明 工资卡 公积金 社保 养老金 百分之五 三万块钱
    百分之三点八五 幺二三七八 一百万 六个月 十年期
    """
)
_TAIL: Final = _words(
    """
    没问题 不会亏 最划算 更安全 才可以 行不行 就好了 怎么办 到现在 没人管 来不及 很简单 放心吧
    再考虑
    """
)
_FILL: Final = _words(
    """
    嗯 那个 就是 然后 这边 的话 请问 好的 因为 所以 如果 其实 可能 应该 一下 的 了 吧 呢
    啊 ， 。
    """
)


def phrases(count: int, seed: int = 1) -> list[str]:
    """``count`` phrases, all different, of two to fourteen characters; about one in ten has a gap."""
    rng = random.Random(seed)
    out: dict[str, None] = {}
    while len(out) < count:
        who, how, do, what, tail = (rng.choice(words) for words in (_WHO, _HOW, _DO, _WHAT, _TAIL))
        draw = rng.random()
        if draw < 0.04:
            phrase = rng.choice((do, what))
        elif draw < 0.30:
            phrase = do + what
        elif draw < 0.45:
            phrase = how + do
        elif draw < 0.62:
            phrase = how + do + what
        elif draw < 0.72:
            phrase = what + tail
        elif draw < 0.82:
            phrase = who + how + do + what
        elif draw < 0.90:
            phrase = who + do + tail
        else:
            phrase = rng.choice((what + GAP + do, do + what + GAP + tail, who + how + GAP + what))
        out[phrase] = None
    return list(out)


def sentences(count: int, seed: int = 2, low: int = 20, high: int = 40) -> list[str]:
    """Utterances of ``low`` to ``high`` characters from the same words: what costs matching most."""
    rng = random.Random(seed)
    pools = (_WHO, _HOW, _DO, _WHAT, _TAIL, _FILL, _FILL)
    return [_grown(rng, pools, low, high) for _ in range(count)]


def noise(count: int, characters: Sequence[str], seed: int = 3, low: int = 20, high: int = 40) -> list[str]:
    """Random characters in no order of a language, drawn from ``characters``."""
    rng = random.Random(seed)
    return [_grown(rng, (characters,), low, high) for _ in range(count)]


def _grown(rng: random.Random, pools: Sequence[Sequence[str]], low: int, high: int) -> str:
    text, size = "", rng.randint(low, high)
    while len(text) < size:
        text += rng.choice(rng.choice(pools))
    return text[:size]
