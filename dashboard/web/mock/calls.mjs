/** Three invented calls, as turns. Seconds; `partial: false` turns come without partials. */

const red = (id, zh, en, words, how = 'exact') => ({ id, zh, en, severity: 'critical', words, how })
const warn = (id, zh, en, words, how = 'exact') => ({ id, zh, en, severity: 'warning', words, how })
const note = (id, zh, en, words, how = 'exact') => ({ id, zh, en, severity: 'info', words, how })

export const CALLS = [
  {
    agent: '王敏 8012', queue: '理财专线', customer: '138****2046', level: '金卡', direction: 'outbound', reason: 'hangup',
    turns: [
      ['agent', 0.8, 4.2, '您好，这里是远程银行理财专线，我是八零一二号客户经理王敏。'],
      ['customer', 4.9, 7.4, '嗯，你好，是说我那个定期快到期的事吗？'],
      ['agent', 7.9, 13.6, '对的，您有一笔三十万的定期下周到期，我这边给您推荐一款新产品。'],
      ['customer', 14.2, 17.0, '这个有风险吗？我主要是怕亏本。'],
      ['agent', 17.5, 23.8, '您放心，这款产品是保本的，收益稳赚不赔，年化百分之四点五以上。',
        [red('redline.guaranteed_return', '承诺保本保收益', 'Promises principal or return', ['保本', '稳赚不赔'])]],
      ['customer', 24.6, 28.0, '真的吗？跟存款一样保险？'],
      ['agent', 28.4, 33.0, '基本上就跟存款是一样的，而且额度只剩今天最后两百万了。',
        [red('redline.deposit_equivalence', '类存款误导', 'Equates product with a deposit', ['跟存款是一样的'], 'pinyin'),
          warn('warning.hunger_marketing', '饥饿营销施压', 'Pressure by scarcity', ['只剩今天最后'])]],
      ['customer', 33.8, 36.4, '那我考虑考虑，回头跟家里商量一下。', [], 0.42],
      ['agent', 37.0, 41.5, '您要是今天不定，这个收益就没有了，我先帮您登记上吧。'],
      ['customer', 42.0, 45.2, '行吧，那你先给我发一份资料看看。', [note('opportunity.wealth', '理财商机', 'Wealth opportunity', ['发一份资料'])]],
      ['agent', 45.8, 49.0, '好的，资料马上发到您的手机银行，感谢您的接听，再见。'],
    ],
    length: 51,
  },
  {
    agent: '李航 8035', queue: '信用卡服务', customer: '159****7731', level: '普通', direction: 'inbound', reason: 'disconnected',
    turns: [
      ['agent', 1.0, 3.6, '您好，信用卡客服，请问有什么可以帮您？'],
      ['customer', 4.0, 10.5, '我这个月都打了三次电话了，年费到现在也没给我退，你们到底管不管？',
        [warn('signal.repeat_contact', '多次来电未解决', 'Repeat contact, unresolved', ['打了三次电话'])]],
      ['agent', 11.2, 14.8, '非常抱歉给您带来不便，我先核实一下您的卡片信息。'],
      ['customer', 15.3, 20.9, '不用核实了，我要投诉，再不解决我就打一二三七八，找金融监管总局。',
        [warn('signal.complaint', '投诉意向', 'Intends to complain', ['我要投诉']),
          red('signal.regulator', '向监管升级', 'Escalates to the regulator', ['一二三七八', '金融监管总局'], 'entity')]],
      ['agent', 21.6, 26.0, '先生您先别着急，这个情况我马上为您登记加急处理。'],
      ['customer', 26.4, 30.8, '每次都这么说，<b>叫你们领导来</b>接电话！', [warn('signal.escalate', '要求升级', 'Asks for a superior', ['叫你们领导来'], 'similar')]],
      ['agent', 31.5, 34.4, '好的，请您稍等，我请值班经理与您通话。'],
      ['customer', 46.5, 49.0, '喂？人呢？还在不在？', [note('dynamics.dead_air', '长时间静默', 'Dead air', [], 'timer')], 0.51],
      ['agent', 49.6, 53.0, '在的，让您久等了，值班经理已经接入。'],
    ],
    gap: 1400, length: 56,
  },
  {
    agent: '赵雪梅 8107', queue: '综合服务', customer: '186****5520', level: '私行', direction: 'inbound', reason: 'hangup',
    turns: [
      ['agent', 0.6, 3.2, '您好，私人银行专属服务，请问怎么称呼您？'],
      ['customer', 3.8, 9.4, '我姓陈，刚才有人打电话说是公安局的，让我把钱转到安全账户。',
        [red('signal.fraud_victim', '疑似被骗', 'Customer may be a fraud victim', ['转到安全账户'])]],
      ['agent', 10.0, 16.6, '陈女士，请您千万不要转账，公安机关没有安全账户，也请不要把验证码告诉任何人。'],
      ['customer', 17.4, 20.6, '我已经转了五万了，怎么办啊？'],
      ['agent', 21.0, 27.8, '我马上为您办理紧急止付，请您同时拨打幺幺零报警，先不要挂机。'],
      ['customer', 28.4, 30.0, '好，好的。'],
      ['agent', 33.5, 38.9, '止付申请已经提交，请您稍后查收短信，并保留对方的通话记录。'],
      ['customer', 39.6, 43.4, '太谢谢你了小姑娘，你真是帮了我大忙。', [note('signal.praise', '表扬', 'Praise', ['太谢谢你了', '帮了我大忙'])]],
      ['agent', 44.0, 47.4, '这是我们应该做的，祝您生活愉快，再见。'],
    ],
    length: 49,
  },
]
